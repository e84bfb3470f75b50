DELETE FROM email_delivery_logs WHERE event IN ('delayed', 'resolved', 'suppressed', 'rerouted', 'replied');
ALTER TABLE email_delivery_logs
  DROP CONSTRAINT email_delivery_logs_event_check,
  ADD CONSTRAINT email_delivery_logs_event_check CHECK (event IN (
    'queued', 'sending', 'sent', 'failed', 'bounced', 'opened', 'clicked', 'complained',
    'deferred', 'postponed', 'uncertain', 'held', 'released', 'retried', 'cancelled'));

ALTER TABLE email_queue DROP COLUMN dsn_notify, DROP COLUMN dsn_orcpt;
ALTER TABLE messages DROP COLUMN dsn_ret, DROP COLUMN envelope_id;

-- What the version before knows nothing of is no upstream to it: those that mailboxes need stay, inactive.
ALTER TABLE email_configurations
  DROP CONSTRAINT email_configurations_smtp_tls_check,
  DROP CONSTRAINT email_configurations_smtp_auth_mechanism_check,
  DROP CONSTRAINT email_configurations_mode_check,
  DROP CONSTRAINT email_configurations_smtp_check,
  DROP CONSTRAINT email_configurations_login_check,
  DROP CONSTRAINT email_configurations_client_key_check;
UPDATE email_configurations
   SET is_active = is_active AND provider_type IN ('smtp_relay', 'capture') AND smtp_host LIKE '/%' IS NOT TRUE
                   AND smtp_client_certificate IS NULL
                   AND smtp_auth_mechanism IS DISTINCT FROM 'XOAUTH2',
       smtp_port = CASE WHEN smtp_host LIKE '/%' THEN 25 ELSE smtp_port END,
       smtp_tls = CASE smtp_tls WHEN 'opportunistic' THEN 'none' ELSE smtp_tls END,
       smtp_auth_mechanism = CASE WHEN smtp_auth_mechanism IN ('PLAIN', 'LOGIN') THEN smtp_auth_mechanism END,
       smtp_username = CASE WHEN smtp_password_sealed IS NOT NULL THEN smtp_username END;
ALTER TABLE email_configurations
  ADD CONSTRAINT email_configurations_smtp_tls_check CHECK (smtp_tls IN ('none', 'starttls', 'implicit')),
  ADD CONSTRAINT email_configurations_smtp_auth_mechanism_check CHECK (smtp_auth_mechanism IN ('PLAIN', 'LOGIN')),
  ADD CONSTRAINT email_configurations_check1
    CHECK (provider_type <> 'smtp_relay' OR (smtp_host IS NOT NULL AND smtp_port IS NOT NULL AND smtp_tls IS NOT NULL)),
  ADD CONSTRAINT email_configurations_check3 CHECK ((smtp_username IS NULL) = (smtp_password_sealed IS NULL)),
  DROP COLUMN mode, DROP COLUMN dialect, DROP COLUMN smtp_client_certificate, DROP COLUMN smtp_client_key_sealed,
  DROP COLUMN idle_seconds, DROP COLUMN api_url, DROP COLUMN token_url, DROP COLUMN authorization_url,
  DROP COLUMN api_key_sealed, DROP COLUMN oauth_client_id, DROP COLUMN oauth_client_secret_sealed,
  DROP COLUMN oauth_account, DROP COLUMN oauth_refresh_token_sealed, DROP COLUMN google_service_account,
  DROP COLUMN google_service_account_sealed;
DROP TRIGGER email_config_audit_trigger ON email_configurations;
CREATE TRIGGER email_config_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON email_configurations
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('name', 'updated_by', 'smtp_password_sealed');
