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
