-- The queue: a message once, a queue entry for each of its recipients, and the log of what happened to them.
-- Ids are UUIDv7, so that they follow time and can bound a partition.

CREATE TABLE messages (
  id                uuid PRIMARY KEY,       -- the queue id
  client_id         uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  mailbox_id        uuid NOT NULL REFERENCES email_mailboxes ON DELETE CASCADE,
  credential_id     uuid,
  origin            text NOT NULL CHECK (origin IN ('submission', 'dsn', 'resend')),
  reverse_path      text NOT NULL,          -- '' is the null reverse-path
  header_from       text NOT NULL,
  message_id_header text NOT NULL CHECK (length(message_id_header) <= 998),
  subject           text NOT NULL CHECK (length(subject) <= 255),
  size_octets       integer NOT NULL CHECK (size_octets > 0),
  smtputf8          boolean NOT NULL,
  body_8bitmime     boolean NOT NULL,
  parent_id         uuid,                   -- the message that a DSN speaks of or a resend repeats
  helo              text NOT NULL,
  peer              text NOT NULL,
  created_at        timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at        timestamptz NOT NULL DEFAULT relayd_now()
);
CREATE INDEX messages_message_id_header ON messages (message_id_header);
CREATE INDEX messages_header_from ON messages (lower(header_from), id);
CREATE INDEX messages_client ON messages (client_id, id);

-- EXTERNAL: mail compresses badly and Postgres's compression costs the hot path more than the disk it saves.
CREATE TABLE message_bodies (
  message_id uuid PRIMARY KEY REFERENCES messages ON DELETE CASCADE,
  content    bytea NOT NULL
) WITH (toast_tuple_target = 8160);
ALTER TABLE message_bodies ALTER COLUMN content SET STORAGE EXTERNAL;

CREATE TABLE email_queue (
  id                  uuid PRIMARY KEY,
  client_id           uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  message_id          uuid NOT NULL REFERENCES messages ON DELETE CASCADE,
  mailbox_id          uuid NOT NULL REFERENCES email_mailboxes ON DELETE CASCADE,
  lane_id             bigint NOT NULL,
  recipient_address   text NOT NULL CHECK (length(recipient_address) <= 254),
  recipient_name      text,
  subject             text NOT NULL CHECK (length(subject) <= 255),
  status              text NOT NULL DEFAULT 'queued'
                      CHECK (status IN ('pending', 'queued', 'sending', 'sent', 'failed', 'bounced', 'spam')),
  reason              text CHECK (length(reason) <= 1000),  -- why it waits or why it ended, for an operator to read
  pending_reason      text CHECK (pending_reason IN ('scheduled', 'held', 'uncertain')),
  retry_count         integer NOT NULL DEFAULT 0,   -- attempts spent
  max_retries         integer NOT NULL CHECK (max_retries >= 0),
  next_attempt_at     timestamptz NOT NULL,
  first_attempt_at    timestamptz,
  -- The lease: whose claim, until when, how many claims so far, and whether the attempt has begun.
  claimed_by          text,
  lease_expires_at    timestamptz,
  fence               integer NOT NULL DEFAULT 0,
  attempt_started_at  timestamptz,
  upstream_id         uuid,                         -- of the latest claim
  reserved_until      timestamptz,                  -- the mailbox window in which this entry holds a returnable unit
  provider_message_id text CHECK (length(provider_message_id) <= 255),
  sent_at             timestamptz,
  delivered_at        timestamptz,
  failed_at           timestamptz,
  bounced_at          timestamptz,
  bounce_type         text CHECK (bounce_type IN ('hard', 'soft')),
  bounce_reason       text CHECK (length(bounce_reason) <= 1000),
  created_at          timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at          timestamptz NOT NULL DEFAULT relayd_now(),
  CHECK ((status = 'pending') = (pending_reason IS NOT NULL)),
  CHECK ((status = 'sending') = (lease_expires_at IS NOT NULL)),
  CHECK ((status = 'sending') = (claimed_by IS NOT NULL)),
  CHECK (status <> 'sent' OR sent_at IS NOT NULL),
  CHECK ((status = 'failed') = (failed_at IS NOT NULL)),
  CHECK (status NOT IN ('bounced', 'spam') OR bounced_at IS NOT NULL)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02,
        autovacuum_vacuum_cost_delay = 0);
-- The claim: a lane's oldest due entries.
CREATE INDEX email_queue_due ON email_queue (lane_id, next_attempt_at, id) WHERE status = 'queued';
-- Reclaim, a turning window, a worker's claims: what is in flight, always few.
CREATE INDEX email_queue_in_flight ON email_queue (mailbox_id, lease_expires_at) WHERE status = 'sending';
-- Depth and oldest age by state, `queue list`: live entries only.
CREATE INDEX email_queue_live ON email_queue (status, created_at) WHERE status IN ('pending', 'queued', 'sending');
CREATE INDEX email_queue_message ON email_queue (message_id);
CREATE INDEX email_queue_recipient ON email_queue (lower(recipient_address), id);

CREATE TRIGGER email_queue_updated_at BEFORE UPDATE ON email_queue
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- No foreign key to the queue: partitions of the queue must be free to go first.
CREATE TABLE email_delivery_logs (
  id            uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id     uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  message_id    uuid NOT NULL,
  entry_id      uuid NOT NULL,
  event         text NOT NULL CHECK (event IN (
                  'queued', 'sending', 'sent', 'failed', 'bounced', 'opened', 'clicked', 'complained',
                  'deferred', 'postponed', 'uncertain', 'held', 'released', 'retried', 'cancelled')),
  attempt       integer,                 -- the fence of the claim this speaks of
  late          boolean NOT NULL DEFAULT false,  -- a result that came after its lease had been given away
  stage         text,
  error_code    integer,
  enhanced_code text,
  error_message text CHECK (length(error_message) <= 1000),
  provider      text,                    -- the upstream's provider_type
  upstream_id   uuid,
  actor         text,                    -- who, where an operator did it
  created_at    timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at    timestamptz NOT NULL DEFAULT relayd_now()
);
CREATE INDEX email_delivery_logs_entry ON email_delivery_logs (entry_id, id);
