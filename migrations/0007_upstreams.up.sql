-- Upstreams in all their ways: Google's modes, SendGrid, every kind of SMTP server. And what a sender asks to be told
-- of a message's fate (RFC 3461).

ALTER TABLE email_configurations
  -- Which of a provider's ways: google_workspace smtp-relay, xoauth2 or gmail_api; sendgrid smtp or api.
  ADD COLUMN mode                          text,
  ADD COLUMN dialect                       text,  -- whose replies it gives; NULL: told by its provider and host
  ADD COLUMN smtp_client_certificate       text,  -- PEM, the chain
  ADD COLUMN smtp_client_key_sealed        bytea,
  ADD COLUMN idle_seconds                  double precision NOT NULL DEFAULT 10
                                           CHECK (idle_seconds BETWEEN 0 AND 3600),
  -- Where the provider's HTTP is; NULL: its own addresses.
  ADD COLUMN api_url                       text CHECK (length(api_url) <= 1000),
  ADD COLUMN token_url                     text CHECK (length(token_url) <= 1000),
  ADD COLUMN authorization_url             text CHECK (length(authorization_url) <= 1000),
  ADD COLUMN api_key_sealed                bytea,
  ADD COLUMN oauth_client_id               text CHECK (length(oauth_client_id) <= 255),
  ADD COLUMN oauth_client_secret_sealed    bytea,
  ADD COLUMN oauth_account                 text CHECK (length(oauth_account) <= 254),  -- whose grant it is
  ADD COLUMN oauth_refresh_token_sealed    bytea,
  ADD COLUMN google_service_account        text CHECK (length(google_service_account) <= 254),  -- its address
  ADD COLUMN google_service_account_sealed bytea;                                               -- its key file

-- Such rows are there after a way back from a version that knew their modes; they were made inactive then.
UPDATE email_configurations
   SET mode = CASE provider_type WHEN 'google_workspace' THEN 'gmail_api' ELSE 'api' END, is_active = false
 WHERE provider_type IN ('google_workspace', 'sendgrid');

ALTER TABLE email_configurations
  DROP CONSTRAINT email_configurations_check1,
  DROP CONSTRAINT email_configurations_check3,
  DROP CONSTRAINT email_configurations_smtp_tls_check,
  DROP CONSTRAINT email_configurations_smtp_auth_mechanism_check,
  ADD CONSTRAINT email_configurations_smtp_tls_check
    CHECK (smtp_tls IN ('none', 'opportunistic', 'starttls', 'implicit')),
  ADD CONSTRAINT email_configurations_smtp_auth_mechanism_check
    CHECK (smtp_auth_mechanism IN ('PLAIN', 'LOGIN', 'CRAM-MD5', 'XOAUTH2')),
  ADD CONSTRAINT email_configurations_mode_check
    CHECK (CASE provider_type WHEN 'google_workspace' THEN mode IN ('smtp-relay', 'xoauth2', 'gmail_api')
                              WHEN 'sendgrid' THEN mode IN ('smtp', 'api')
                              ELSE mode IS NULL END AND (mode IS NOT NULL OR provider_type IN ('smtp_relay', 'capture'))),
  -- A Unix socket, whose path is its host, has no port.
  ADD CONSTRAINT email_configurations_smtp_check
    CHECK (provider_type = 'capture' OR mode IN ('gmail_api', 'api')
           OR (smtp_host IS NOT NULL AND smtp_tls IS NOT NULL AND (smtp_port IS NULL) = (smtp_host LIKE '/%'))),
  ADD CONSTRAINT email_configurations_login_check
    CHECK (smtp_username IS NOT NULL OR smtp_password_sealed IS NULL),
  ADD CONSTRAINT email_configurations_client_key_check
    CHECK ((smtp_client_certificate IS NULL) = (smtp_client_key_sealed IS NULL));

DROP TRIGGER email_config_audit_trigger ON email_configurations;
CREATE TRIGGER email_config_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON email_configurations
  FOR EACH ROW EXECUTE FUNCTION relayd_audit(
    'name', 'updated_by', 'smtp_password_sealed,smtp_client_key_sealed,api_key_sealed,oauth_client_secret_sealed,'
    'oauth_refresh_token_sealed,google_service_account_sealed');

-- What the submitter asked to be told (RFC 3461). NULL: nothing was said.
ALTER TABLE messages
  ADD COLUMN dsn_ret     text CHECK (dsn_ret IN ('FULL', 'HDRS')),
  ADD COLUMN envelope_id text CHECK (length(envelope_id) <= 100);  -- as it came, in xtext
ALTER TABLE email_queue
  ADD COLUMN dsn_notify text CHECK (length(dsn_notify) <= 28),     -- NEVER, or a list of SUCCESS, FAILURE, DELAY
  ADD COLUMN dsn_orcpt  text CHECK (length(dsn_orcpt) <= 500);     -- type;xtext, as it came

ALTER TABLE email_delivery_logs
  DROP CONSTRAINT email_delivery_logs_event_check,
  ADD CONSTRAINT email_delivery_logs_event_check CHECK (event IN (
    'queued', 'sending', 'sent', 'failed', 'bounced', 'opened', 'clicked', 'complained',
    'deferred', 'postponed', 'uncertain', 'held', 'released', 'retried', 'cancelled',
    'delayed', 'resolved', 'suppressed', 'rerouted', 'replied'));
