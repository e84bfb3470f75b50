DROP INDEX email_queue_looks;
CREATE INDEX email_queue_looks ON email_queue (look_at) WHERE pending_reason = 'uncertain' AND look_at IS NOT NULL;
ALTER TABLE email_queue DROP COLUMN look_by;
