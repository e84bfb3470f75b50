-- Who may send, as whom, and where it goes next.

CREATE TABLE clients (
  id               uuid PRIMARY KEY DEFAULT relayd_uuid(),
  name             text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  tier             text NOT NULL DEFAULT 'Ignition' CHECK (tier ~ '^[A-Za-z][A-Za-z0-9 _-]{0,62}$'),
  status           text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
  may_send_bounces boolean NOT NULL DEFAULT false,  -- may use the null reverse-path
  deleted_at       timestamptz,
  created_at       timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at       timestamptz NOT NULL DEFAULT relayd_now()
);
CREATE UNIQUE INDEX clients_name ON clients (name) WHERE deleted_at IS NULL;

-- The upstreams. client_id NULL: shared by all clients.
CREATE TABLE email_configurations (
  id                          uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id                   uuid REFERENCES clients ON DELETE CASCADE,
  name                        text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  provider_type               text NOT NULL
                              CHECK (provider_type IN ('google_workspace', 'smtp_relay', 'sendgrid', 'capture')),
  smtp_host                   text CHECK (length(smtp_host) BETWEEN 1 AND 255),
  smtp_port                   integer CHECK (smtp_port BETWEEN 1 AND 65535),
  smtp_tls                    text CHECK (smtp_tls IN ('none', 'starttls', 'implicit')),
  smtp_verify_certificate     boolean NOT NULL DEFAULT true,
  smtp_ca_file                text,
  smtp_username               text,
  smtp_password_sealed        bytea,
  smtp_auth_mechanism         text CHECK (smtp_auth_mechanism IN ('PLAIN', 'LOGIN')),
  smtp_allow_plaintext_auth   boolean NOT NULL DEFAULT false,
  ehlo_name                   text CHECK (length(ehlo_name) BETWEEN 1 AND 255),
  source_address              inet,
  max_connections             integer NOT NULL DEFAULT 20 CHECK (max_connections BETWEEN 1 AND 10000),
  max_recipients              integer NOT NULL DEFAULT 100 CHECK (max_recipients BETWEEN 1 AND 10000),
  max_messages_per_connection integer NOT NULL DEFAULT 100 CHECK (max_messages_per_connection BETWEEN 1 AND 1000000),
  on_uncertain                text NOT NULL DEFAULT 'retry' CHECK (on_uncertain IN ('retry', 'hold')),
  capture_directory           text,
  sender_address              text,
  sender_name                 text,
  is_active                   boolean NOT NULL DEFAULT true,
  is_verified                 boolean NOT NULL DEFAULT false,
  paused_at                   timestamptz,
  paused_reason               text CHECK (length(paused_reason) <= 500),
  metadata                    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
  created_by                  text NOT NULL DEFAULT relayd_actor(),
  updated_by                  text NOT NULL DEFAULT relayd_actor(),
  deleted_at                  timestamptz,
  created_at                  timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at                  timestamptz NOT NULL DEFAULT relayd_now(),
  CHECK ((paused_at IS NULL) = (paused_reason IS NULL)),
  CHECK (provider_type <> 'smtp_relay' OR (smtp_host IS NOT NULL AND smtp_port IS NOT NULL AND smtp_tls IS NOT NULL)),
  CHECK (provider_type <> 'capture' OR capture_directory IS NOT NULL),
  CHECK ((smtp_username IS NULL) = (smtp_password_sealed IS NULL))
);
CREATE UNIQUE INDEX email_configurations_name ON email_configurations (name) WHERE deleted_at IS NULL;
CREATE INDEX email_configurations_client ON email_configurations (client_id);

CREATE TABLE email_domains (
  id                 uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id          uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  domain             text NOT NULL CHECK (domain = lower(domain) AND length(domain) BETWEEN 1 AND 255),
  provider           text NOT NULL DEFAULT 'manual' CHECK (provider IN ('infraforge', 'manual')),
  default_mailbox_id uuid,  -- sends what names no mailbox of its own
  status             text NOT NULL DEFAULT 'active' CHECK (status IN ('pending', 'active', 'suspended', 'deleted')),
  deleted_at         timestamptz,
  created_at         timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at         timestamptz NOT NULL DEFAULT relayd_now(),
  CHECK ((status = 'deleted') = (deleted_at IS NOT NULL))
);
CREATE UNIQUE INDEX email_domains_domain ON email_domains (domain) WHERE deleted_at IS NULL;
CREATE INDEX email_domains_client ON email_domains (client_id);

CREATE TABLE dkim_keys (
  id                 uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id          uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  domain_id          uuid NOT NULL REFERENCES email_domains ON DELETE CASCADE,
  selector           text NOT NULL CHECK (selector ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  algorithm          text NOT NULL CHECK (algorithm IN ('rsa-sha256', 'ed25519-sha256')),
  record_value       text NOT NULL CHECK (record_value LIKE 'v=DKIM1;%'),
  private_key_sealed bytea NOT NULL,
  status             text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'retired')),
  created_at         timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at         timestamptz NOT NULL DEFAULT relayd_now(),
  UNIQUE (domain_id, selector)
);

CREATE TABLE email_mailboxes (
  id                  uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id           uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  domain_id           uuid NOT NULL REFERENCES email_domains ON DELETE CASCADE,
  upstream_id         uuid NOT NULL REFERENCES email_configurations,
  email_address       text NOT NULL CHECK (email_address LIKE '_%@_%' AND length(email_address) <= 254),
  display_name        text CHECK (length(display_name) <= 255),
  status              text NOT NULL DEFAULT 'active' CHECK (status IN ('warming', 'active', 'paused', 'suspended')),
  status_reason       text CHECK (length(status_reason) <= 500),
  daily_send_limit    integer DEFAULT 10 CHECK (daily_send_limit >= 0),  -- today's; NULL is unlimited, 0 is never
  time_zone           text NOT NULL DEFAULT 'UTC'        -- an unknown zone raises here, not in the claim
                      CHECK ((timestamptz '2000-01-01 00:00+00' AT TIME ZONE time_zone) IS NOT NULL),
  -- Units (recipients) counted in the window that ends at window_ends_at: sent, in flight and in doubt.
  -- Stale once that has passed; read email_mailbox_usage, which is right at any instant.
  current_daily_sends integer NOT NULL DEFAULT 0 CHECK (current_daily_sends >= 0),
  window_ends_at      timestamptz NOT NULL DEFAULT '-infinity',
  deleted_at          timestamptz,
  created_at          timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at          timestamptz NOT NULL DEFAULT relayd_now()
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX email_mailboxes_address ON email_mailboxes (lower(email_address)) WHERE deleted_at IS NULL;
CREATE INDEX email_mailboxes_client ON email_mailboxes (client_id);
CREATE INDEX email_mailboxes_domain ON email_mailboxes (domain_id);
CREATE INDEX email_mailboxes_upstream ON email_mailboxes (upstream_id);
ALTER TABLE email_domains ADD FOREIGN KEY (default_mailbox_id) REFERENCES email_mailboxes ON DELETE SET NULL;

-- A lane is the line in which a mailbox's entries of one class wait. The claim starts here: from lanes that may run,
-- never from entries that may not. `dsn` carries bounces, which spend no mailbox budget.
CREATE TABLE mailbox_lanes (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mailbox_id     uuid NOT NULL REFERENCES email_mailboxes ON DELETE CASCADE,
  class          text NOT NULL CHECK (class IN ('mail', 'dsn')),
  upstream_id    uuid NOT NULL,           -- the mailbox's, so that one index serves the claim
  held           boolean NOT NULL,        -- mailbox, domain or client may not send now
  due_at         timestamptz NOT NULL DEFAULT 'infinity',   -- no later than the oldest queued entry's next_attempt_at
  blocked_until  timestamptz NOT NULL DEFAULT '-infinity',  -- a limit, or the upstream, says not before
  blocked_reason text,
  runnable_at    timestamptz GENERATED ALWAYS AS (GREATEST(due_at, blocked_until)) STORED,
  UNIQUE (mailbox_id, class)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX mailbox_lanes_runnable ON mailbox_lanes (upstream_id, runnable_at) WHERE NOT held;

CREATE TABLE smtp_credentials (
  id           uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id    uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  login        text NOT NULL CHECK (login ~ '^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$'),
  salt         bytea NOT NULL,
  iterations   integer NOT NULL CHECK (iterations >= 4096),
  stored_key   bytea NOT NULL CHECK (length(stored_key) = 32),   -- SCRAM-SHA-256 (RFC 5802, 7677)
  server_key   bytea NOT NULL CHECK (length(server_key) = 32),
  senders      text[] CHECK (cardinality(senders) > 0),          -- addresses or domains; NULL: any of the client's
  is_active    boolean NOT NULL DEFAULT true,
  deleted_at   timestamptz,
  created_at   timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at   timestamptz NOT NULL DEFAULT relayd_now()
);
CREATE UNIQUE INDEX smtp_credentials_login ON smtp_credentials (login) WHERE deleted_at IS NULL;
CREATE INDEX smtp_credentials_client ON smtp_credentials (client_id);

-- updated_at: for the mailbox only where configuration changes, since the claim counts in that row.
CREATE TRIGGER clients_updated_at BEFORE UPDATE ON clients
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER email_configurations_updated_at BEFORE UPDATE ON email_configurations
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER email_domains_updated_at BEFORE UPDATE ON email_domains
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER dkim_keys_updated_at BEFORE UPDATE ON dkim_keys
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER email_mailboxes_updated_at
  BEFORE UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                   daily_send_limit, time_zone, deleted_at ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER smtp_credentials_updated_at BEFORE UPDATE ON smtp_credentials
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TRIGGER clients_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON clients
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('name', '', '');
CREATE TRIGGER email_config_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON email_configurations
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('name', 'updated_by', 'smtp_password_sealed');
CREATE TRIGGER email_domains_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON email_domains
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('domain', '', '');
CREATE TRIGGER dkim_keys_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON dkim_keys
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('selector', '', 'private_key_sealed');
CREATE TRIGGER email_mailboxes_audit_trigger
  AFTER INSERT OR DELETE
     OR UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                  daily_send_limit, time_zone, deleted_at ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('email_address', 'current_daily_sends,window_ends_at', '');
CREATE TRIGGER smtp_credentials_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON smtp_credentials
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('login', '', 'salt,stored_key,server_key');

-- Lanes follow what decides whether and where they run. A changed limit unblocks: the next claim looks again.
CREATE FUNCTION sync_mailbox_lanes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- First the locks: of two that change a mailbox and its domain at once, the second must see what the first has done.
  PERFORM FROM mailbox_lanes l JOIN email_mailboxes m ON m.id = l.mailbox_id
    WHERE CASE TG_TABLE_NAME WHEN 'email_mailboxes' THEN m.id = NEW.id
                             WHEN 'email_domains' THEN m.domain_id = NEW.id
                             ELSE m.client_id = NEW.id END
    ORDER BY l.id FOR NO KEY UPDATE OF l;
  INSERT INTO mailbox_lanes AS lane (mailbox_id, class, upstream_id, held)
  SELECT m.id, k.class, m.upstream_id,
         m.status NOT IN ('warming', 'active') OR d.status NOT IN ('pending', 'active') OR c.status <> 'active'
    FROM email_mailboxes m
    JOIN email_domains d ON d.id = m.domain_id
    JOIN clients c ON c.id = m.client_id
    CROSS JOIN (VALUES ('mail'), ('dsn')) AS k (class)
   WHERE CASE TG_TABLE_NAME WHEN 'email_mailboxes' THEN m.id = NEW.id
                            WHEN 'email_domains' THEN m.domain_id = NEW.id
                            ELSE m.client_id = NEW.id END
   ORDER BY m.id, k.class
  ON CONFLICT (mailbox_id, class) DO UPDATE
     SET upstream_id = EXCLUDED.upstream_id, held = EXCLUDED.held,
         blocked_until = '-infinity', blocked_reason = NULL;
  RETURN NULL;
END
$$;
CREATE TRIGGER email_mailboxes_lanes
  AFTER INSERT OR UPDATE OF upstream_id, status, daily_send_limit, time_zone, deleted_at ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION sync_mailbox_lanes();
CREATE TRIGGER email_domains_lanes AFTER UPDATE OF status ON email_domains
  FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION sync_mailbox_lanes();
CREATE TRIGGER clients_lanes AFTER UPDATE OF status ON clients
  FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION sync_mailbox_lanes();

CREATE VIEW email_mailbox_usage AS
SELECT m.id AS mailbox_id, m.client_id, m.email_address, m.daily_send_limit, m.time_zone,
       CASE WHEN m.window_ends_at > relayd_now() THEN m.current_daily_sends ELSE 0 END AS used,
       CASE WHEN m.window_ends_at > relayd_now() THEN m.window_ends_at END AS window_ends_at
  FROM email_mailboxes m
 WHERE m.deleted_at IS NULL;
