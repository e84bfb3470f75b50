-- Indexes that cost every message something and give nothing back.

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

-- The statements of the hot path set updated_at themselves; the trigger is for everybody else. Called for each claim,
-- start and settle of an entry it cost as much as the update.
DROP TRIGGER email_queue_updated_at ON email_queue;
CREATE TRIGGER email_queue_updated_at BEFORE UPDATE ON email_queue
  FOR EACH ROW WHEN (NEW.updated_at = OLD.updated_at) EXECUTE FUNCTION update_updated_at_column();
