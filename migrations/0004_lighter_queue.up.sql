-- Indexes that cost every message something and give nothing back, and one that was read where it should not be.

-- The lease was its second column, which no query seeks by: all that is in flight is read, and it is little. As a column
-- of an index it kept the start of an attempt, which renews the lease, from being a HOT update: each start wrote a new
-- entry into every index of the table.
DROP INDEX email_queue_in_flight;
CREATE INDEX email_queue_in_flight ON email_queue (mailbox_id) WHERE status = 'sending';

-- A search for a sender asks for the header From or the reverse-path, so it cannot use an index over one of them: it
-- walks back in time by the primary key.
DROP INDEX messages_header_from;

-- Nothing looks for the messages of a client: whose they are is asked of their mailboxes and of their entries. Taking
-- a client away for good, one day, would read them all once, as it would the queue and the log.
DROP INDEX messages_client;

-- The same entries as before. Written so that `status = 'queued'` does not imply it: while little waits, reading all of
-- it looks as cheap as reading a lane's oldest, and a claim planned then read the whole queue for each lane later.
-- Who wants this index says so in the same words.
DROP INDEX email_queue_live;
CREATE INDEX email_queue_live ON email_queue (status, created_at)
  WHERE (status IN ('pending', 'queued', 'sending')) IS TRUE;

-- The statements of the hot path set updated_at themselves; the trigger, a call of PL/pgSQL for each claim, start and
-- settle of an entry, is for everybody else.
DROP TRIGGER email_queue_updated_at ON email_queue;
CREATE TRIGGER email_queue_updated_at BEFORE UPDATE ON email_queue
  FOR EACH ROW WHEN (NEW.updated_at = OLD.updated_at) EXECUTE FUNCTION update_updated_at_column();

-- As before, but each table's mailboxes are found by an index: as one CASE over all of them, every new mailbox and every
-- new limit read all the mailboxes that there are.
CREATE OR REPLACE FUNCTION sync_mailbox_lanes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- First the locks: of two that change a mailbox and its domain at once, the second must see what the first has done.
  PERFORM FROM mailbox_lanes l
    WHERE l.mailbox_id IN (
      SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'email_mailboxes' AND id = NEW.id UNION ALL
      SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'email_domains' AND domain_id = NEW.id UNION ALL
      SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'clients' AND client_id = NEW.id)
    ORDER BY l.id FOR NO KEY UPDATE OF l;
  INSERT INTO mailbox_lanes AS lane (mailbox_id, class, upstream_id, held)
  SELECT m.id, k.class, m.upstream_id,
         m.status NOT IN ('warming', 'active') OR d.status NOT IN ('pending', 'active') OR c.status <> 'active'
    FROM email_mailboxes m
    JOIN email_domains d ON d.id = m.domain_id
    JOIN clients c ON c.id = m.client_id
    CROSS JOIN (VALUES ('mail'), ('dsn')) AS k (class)
   WHERE m.id IN (
      SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'email_mailboxes' AND id = NEW.id UNION ALL
      SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'email_domains' AND domain_id = NEW.id UNION ALL
      SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'clients' AND client_id = NEW.id)
   ORDER BY m.id, k.class
  ON CONFLICT (mailbox_id, class) DO UPDATE
     SET upstream_id = EXCLUDED.upstream_id, held = EXCLUDED.held,
         blocked_until = '-infinity', blocked_reason = NULL;
  RETURN NULL;
END
$$;
