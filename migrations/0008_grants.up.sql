-- Access tokens of upstreams that log in with one, shared by all workers and nodes, and what became of their grants.

CREATE TABLE oauth_tokens (
  id                  uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id           uuid REFERENCES clients ON DELETE CASCADE,  -- the upstream's; NULL: shared by all
  upstream_id         uuid NOT NULL REFERENCES email_configurations ON DELETE CASCADE,
  subject             text NOT NULL CHECK (length(subject) <= 254),  -- whose token; '' is the grant's own account
  grant_digest        bytea NOT NULL CHECK (length(grant_digest) = 32),  -- of what tokens are asked for with
  access_token_sealed bytea,
  refresh_at          timestamptz,   -- from then on a new one is fetched; the old one still serves
  expires_at          timestamptz,
  refused_at          timestamptz,   -- a server did not take one, last
  refreshing_by       text,          -- who fetches one, and how long he is waited for
  refreshing_until    timestamptz,
  failure             text CHECK (failure IN ('unavailable', 'account', 'dead')),  -- how the last fetch failed
  failed_at           timestamptz,   -- no token comes before retry_at, and error says why
  retry_at            timestamptz,
  died_at             timestamptz,   -- the grant gives no token until somebody mends it
  error               text CHECK (length(error) <= 1000),
  created_at          timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at          timestamptz NOT NULL DEFAULT relayd_now(),
  UNIQUE (upstream_id, subject, grant_digest),
  CHECK ((access_token_sealed IS NULL) = (expires_at IS NULL) AND (expires_at IS NULL) = (refresh_at IS NULL)),
  CHECK ((refreshing_by IS NULL) = (refreshing_until IS NULL)),
  CHECK ((failure IS NULL) = (failed_at IS NULL) AND (failed_at IS NULL) = (error IS NULL)
         AND (failed_at IS NULL) = (retry_at IS NULL)),
  CHECK ((died_at IS NOT NULL) = (failure IS NOT DISTINCT FROM 'dead'))
);
CREATE INDEX oauth_tokens_client ON oauth_tokens (client_id);
CREATE INDEX oauth_tokens_dead ON oauth_tokens (upstream_id) WHERE died_at IS NOT NULL;

CREATE TRIGGER oauth_tokens_updated_at BEFORE UPDATE ON oauth_tokens
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- Another grant has other tokens, and a grant that was mended is alive at once.
CREATE FUNCTION relayd_forget_tokens() RETURNS trigger LANGUAGE plpgsql AS $$
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
