-- A refresh token that its provider exchanges. Tokens and the lease of a fetch outlive a change that leaves the grant as
-- it is: the same grant sealed anew, or its refresh token exchanged for the next one.

-- relayd.keeps_tokens is set, for one transaction, by whoever changes no more than how secrets are kept. That is no change
-- of the upstream: its connections stay, and so does what is known of it.
DROP TRIGGER email_configurations_updated_at ON email_configurations;
CREATE TRIGGER email_configurations_updated_at BEFORE UPDATE ON email_configurations
  FOR EACH ROW WHEN (current_setting('relayd.keeps_tokens', true) IS DISTINCT FROM 'on')
  EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER email_configurations_tokens ON email_configurations;

-- A fetch that is under way keeps its lease: a second one would present the same refresh token. What it brings is not
-- stored, since nobody holds the lease any more; it ends by itself.
CREATE OR REPLACE FUNCTION relayd_forget_tokens() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM oauth_tokens
   WHERE upstream_id = NEW.id AND (refreshing_until IS NULL OR refreshing_until <= relayd_now());
  UPDATE oauth_tokens
     SET access_token_sealed = NULL, refresh_at = NULL, expires_at = NULL, refused_at = NULL, refreshing_by = 'nobody',
         failure = NULL, failed_at = NULL, retry_at = NULL, died_at = NULL, error = NULL
   WHERE upstream_id = NEW.id;
  RETURN NULL;
END
$$;

CREATE TRIGGER email_configurations_tokens
  AFTER UPDATE OF token_url, smtp_ca_file, oauth_client_id, oauth_client_secret_sealed, oauth_account,
                  oauth_refresh_token_sealed, google_service_account_sealed, deleted_at ON email_configurations
  FOR EACH ROW
  WHEN (current_setting('relayd.keeps_tokens', true) IS DISTINCT FROM 'on'
        AND (OLD.token_url, OLD.smtp_ca_file, OLD.oauth_client_id, OLD.oauth_client_secret_sealed, OLD.oauth_account,
             OLD.oauth_refresh_token_sealed, OLD.google_service_account_sealed, OLD.deleted_at)
            IS DISTINCT FROM
            (NEW.token_url, NEW.smtp_ca_file, NEW.oauth_client_id, NEW.oauth_client_secret_sealed, NEW.oauth_account,
             NEW.oauth_refresh_token_sealed, NEW.google_service_account_sealed, NEW.deleted_at))
  EXECUTE FUNCTION relayd_forget_tokens();
