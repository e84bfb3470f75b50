-- What waits for a look is held in doubt from then on, for an operator to decide.
DROP INDEX email_queue_looks;
ALTER TABLE email_queue DROP COLUMN provider_reference, DROP COLUMN look_at, DROP COLUMN looks;
