-- Who is not to be written to, what a client is told of its mail's fate and how, and warnings of mail that waits long.

ALTER TABLE clients
  -- A notification goes to the reverse-path by mail, into client_events, or both.
  ADD COLUMN bounces          text NOT NULL DEFAULT 'mail' CHECK (bounces IN ('mail', 'event', 'both')),
  -- A suppressed recipient is refused at RCPT, or taken and dropped.
  ADD COLUMN suppressed       text NOT NULL DEFAULT 'refuse' CHECK (suppressed IN ('refuse', 'drop')),
  -- For how long a hard bounce suppresses its address; 0: not at all, NULL: as the configuration says.
  ADD COLUMN suppression_days integer CHECK (suppression_days BETWEEN 0 AND 36500);

DROP TRIGGER clients_updated_at ON clients;
CREATE TRIGGER clients_updated_at
  BEFORE UPDATE OF name, tier, status, may_send_bounces, deleted_at, daily_send_limit, limit_window, time_zone,
                   bulk_reserve_percent, bounces, suppressed, suppression_days ON clients
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- No audit by trigger: bounces fill it, and an import is a million rows. What an operator does to it is audited as a
-- deed. No foreign key to the queue: an entry is forgotten long before its bounce.
CREATE TABLE suppressions (
  id          uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id   uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  address     text NOT NULL CHECK (length(address) BETWEEN 3 AND 320),  -- the key: plain, in lower case
  reason      text NOT NULL CHECK (reason IN ('hard_bounce', 'complaint', 'manual', 'import')),
  detail      text CHECK (length(detail) <= 500),
  entry_id    uuid,                   -- whose bounce or complaint it was
  expires_at  timestamptz,            -- NULL: never
  fingerprint bigint NOT NULL,        -- of client and address: what a worker keeps of it
  written_in  xid8 NOT NULL DEFAULT pg_current_xact_id(),
  created_at  timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at  timestamptz NOT NULL DEFAULT relayd_now(),
  UNIQUE (client_id, address)
);
-- A worker reads all of them once, in this order, and then what was written since.
CREATE INDEX suppressions_fingerprint ON suppressions (fingerprint);
CREATE INDEX suppressions_written_in ON suppressions (written_in);
-- Upkeep takes away what has expired.
CREATE INDEX suppressions_expires ON suppressions (expires_at) WHERE expires_at IS NOT NULL;

CREATE TRIGGER suppressions_updated_at BEFORE UPDATE ON suppressions
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- What became of a client's mail, for a program to read in order. A client's ids are drawn under a lock that is held to
-- the commit: who has read up to one has missed none before it.
CREATE TABLE client_events (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  client_id  uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  kind       text NOT NULL CHECK (kind IN ('bounced', 'delayed', 'relayed', 'suppressed', 'complained', 'replied')),
  message_id uuid,
  entry_id   uuid,
  recipient  text CHECK (length(recipient) <= 320),
  payload    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(payload) = 'object'),
  created_at timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at timestamptz NOT NULL DEFAULT relayd_now()
);
CREATE INDEX client_events_client ON client_events (client_id, id);
CREATE INDEX client_events_created_at ON client_events (created_at);

-- From when on an entry has been waiting, its scheduled time if it has one, and when its sender was warned of that.
ALTER TABLE email_queue
  ADD COLUMN waits_since    timestamptz NOT NULL DEFAULT relayd_now(),
  ADD COLUMN delay_warned_at timestamptz;
-- Who is to be warned: the longest waiting first.
CREATE INDEX email_queue_unwarned ON email_queue (waits_since) WHERE status = 'queued' AND delay_warned_at IS NULL;
