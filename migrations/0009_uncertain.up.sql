-- Attempts in doubt: under what name to look for them at the upstream, and when.

ALTER TABLE email_queue
  ADD COLUMN provider_reference text CHECK (length(provider_reference) <= 255),  -- of the latest attempt that has begun
  ADD COLUMN look_at            timestamptz,                -- in doubt: when relayd looks for it; NULL: never
  ADD COLUMN looks              integer NOT NULL DEFAULT 0; -- looks so far that told nothing
-- The doubts to look into, always few.
CREATE INDEX email_queue_looks ON email_queue (look_at) WHERE pending_reason = 'uncertain' AND look_at IS NOT NULL;
