-- What comes back after it was sent: bounces, complaints, answers. Where they come in, what they were taken for.

ALTER TABLE email_domains
  -- Mail of this domain leaves with a reverse-path of its own there, so that a bounce names what it speaks of.
  ADD COLUMN bounce_domain text CHECK (bounce_domain = lower(bounce_domain) AND length(bounce_domain) BETWEEN 1 AND 200);
CREATE UNIQUE INDEX email_domains_bounce_domain ON email_domains (bounce_domain)
  WHERE bounce_domain IS NOT NULL AND deleted_at IS NULL;
CREATE TRIGGER email_domains_bounce_updated_at BEFORE UPDATE OF bounce_domain ON email_domains
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- Where a mailbox's own mail is read. What is read of it is reports and answers alone.
CREATE TABLE mailbox_inboxes (
  id                   uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id            uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  mailbox_id           uuid NOT NULL UNIQUE REFERENCES email_mailboxes ON DELETE CASCADE,
  email_address        text NOT NULL,  -- the mailbox's, for the audit trail
  kind                 text NOT NULL CHECK (kind IN ('imap', 'gmail_api')),
  imap_host            text CHECK (length(imap_host) BETWEEN 1 AND 255),
  imap_port            integer CHECK (imap_port BETWEEN 1 AND 65535),
  imap_tls             text CHECK (imap_tls IN ('implicit', 'starttls')),
  imap_ca_file         text CHECK (length(imap_ca_file) <= 4096),
  imap_username        text CHECK (length(imap_username) BETWEEN 1 AND 255),
  imap_password_sealed bytea,
  imap_folder          text CHECK (length(imap_folder) BETWEEN 1 AND 255),
  -- How far it was read. NULL: not yet; what lies there before the first look is left alone.
  uid_validity         bigint,
  last_uid             bigint,
  read_to              timestamptz,
  lease_expires_at     timestamptz NOT NULL DEFAULT '-infinity',
  next_pull_at         timestamptz NOT NULL DEFAULT '-infinity',
  failures             integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
  last_error           text CHECK (length(last_error) <= 500),
  last_pulled_at       timestamptz,
  created_at           timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at           timestamptz NOT NULL DEFAULT relayd_now(),
  CHECK (kind <> 'imap' OR (imap_host IS NOT NULL AND imap_port IS NOT NULL AND imap_tls IS NOT NULL
                            AND imap_username IS NOT NULL AND imap_password_sealed IS NOT NULL
                            AND imap_folder IS NOT NULL))
);
CREATE INDEX mailbox_inboxes_client ON mailbox_inboxes (client_id);
-- The chore: those whose turn it is.
CREATE INDEX mailbox_inboxes_due ON mailbox_inboxes (next_pull_at);
CREATE TRIGGER mailbox_inboxes_updated_at
  BEFORE UPDATE OF kind, imap_host, imap_port, imap_tls, imap_ca_file, imap_username, imap_password_sealed, imap_folder
  ON mailbox_inboxes FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER mailbox_inboxes_audit_trigger
  AFTER INSERT OR DELETE
     OR UPDATE OF kind, imap_host, imap_port, imap_tls, imap_ca_file, imap_username, imap_password_sealed, imap_folder
  ON mailbox_inboxes FOR EACH ROW EXECUTE FUNCTION relayd_audit(
    'email_address', 'uid_validity,last_uid,read_to,lease_expires_at,next_pull_at,failures,last_error,last_pulled_at',
    'imap_password_sealed');

-- What came in, as it came. Stored before it is acknowledged, read afterwards.
CREATE TABLE inbound_reports (
  id            uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id     uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  domain_id     uuid REFERENCES email_domains ON DELETE SET NULL,
  mailbox_id    uuid REFERENCES email_mailboxes ON DELETE SET NULL,
  source        text NOT NULL CHECK (source IN ('smtp', 'imap', 'gmail_api')),
  source_key    text CHECK (length(source_key) <= 200),  -- the message's name in the inbox that it was read from
  forward_path  text CHECK (length(forward_path) <= 320),
  reverse_path  text CHECK (length(reverse_path) <= 320),
  peer          text CHECK (length(peer) <= 255),
  subject_id    uuid,                     -- the entry or message that its return path names
  content       bytea NOT NULL,
  status        text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'matched', 'unmatched', 'ignored')),
  kind          text CHECK (kind IN ('bounce', 'delay', 'complaint', 'reply', 'auto_reply', 'unrecognised')),
  detail        text CHECK (length(detail) <= 1000),
  error         text CHECK (length(error) <= 1000),
  message_id    uuid,
  entry_id      uuid,                     -- the first of those it speaks of
  next_look_at  timestamptz NOT NULL DEFAULT relayd_now(),
  received_at   timestamptz NOT NULL DEFAULT relayd_now(),
  settled_at    timestamptz,
  created_at    timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at    timestamptz NOT NULL DEFAULT relayd_now(),
  CHECK ((status = 'new') = (settled_at IS NULL))
);
ALTER TABLE inbound_reports ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX inbound_reports_new ON inbound_reports (next_look_at, id) WHERE status = 'new';
CREATE INDEX inbound_reports_client ON inbound_reports (client_id, id);
CREATE INDEX inbound_reports_message ON inbound_reports (message_id) WHERE message_id IS NOT NULL;
CREATE UNIQUE INDEX inbound_reports_source_key ON inbound_reports (mailbox_id, source_key) WHERE source_key IS NOT NULL;
CREATE TRIGGER inbound_reports_updated_at BEFORE UPDATE ON inbound_reports
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- A bounce that came later is of something that was counted as sent: rates must not count it as tried twice.
ALTER TABLE warmup_stats ADD COLUMN emails_bounced_later integer NOT NULL DEFAULT 0;
