-- How an attempt in doubt is looked for is the attempt's own: its upstream may have another mode by then.

ALTER TABLE email_queue
  ADD COLUMN look_by text CHECK (look_by IN ('reference', 'message_id'));  -- of the latest attempt; NULL: not at all
-- What is under way or in doubt now was begun in the mode that its upstream has.
UPDATE email_queue q
   SET look_by = CASE c.mode WHEN 'gmail_api' THEN 'reference' ELSE 'message_id' END
  FROM email_configurations c
 WHERE c.id = q.upstream_id AND c.provider_type = 'google_workspace' AND c.mode IN ('gmail_api', 'xoauth2')
   AND (q.status = 'sending' OR q.pending_reason = 'uncertain');
-- The doubts to look into, always few, by upstream: the many of one keep back no other's.
DROP INDEX email_queue_looks;
CREATE INDEX email_queue_looks ON email_queue (upstream_id, look_at)
  WHERE pending_reason = 'uncertain' AND look_at IS NOT NULL;
