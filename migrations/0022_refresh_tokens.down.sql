DROP TRIGGER email_configurations_updated_at ON email_configurations;
CREATE TRIGGER email_configurations_updated_at BEFORE UPDATE ON email_configurations
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER email_configurations_tokens ON email_configurations;
CREATE OR REPLACE FUNCTION relayd_forget_tokens() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM oauth_tokens WHERE upstream_id = NEW.id;
  RETURN NULL;
END
$$;
CREATE TRIGGER email_configurations_tokens
  AFTER UPDATE OF token_url, smtp_ca_file, oauth_client_id, oauth_client_secret_sealed, oauth_account,
                  oauth_refresh_token_sealed, google_service_account_sealed, deleted_at ON email_configurations
  FOR EACH ROW
  WHEN ((OLD.token_url, OLD.smtp_ca_file, OLD.oauth_client_id, OLD.oauth_client_secret_sealed, OLD.oauth_account,
         OLD.oauth_refresh_token_sealed, OLD.google_service_account_sealed, OLD.deleted_at)
        IS DISTINCT FROM
        (NEW.token_url, NEW.smtp_ca_file, NEW.oauth_client_id, NEW.oauth_client_secret_sealed, NEW.oauth_account,
         NEW.oauth_refresh_token_sealed, NEW.google_service_account_sealed, NEW.deleted_at))
  EXECUTE FUNCTION relayd_forget_tokens();
