DROP INDEX email_queue_live;
CREATE INDEX email_queue_live ON email_queue (status, created_at) WHERE status IN ('pending', 'queued', 'sending');
CREATE INDEX messages_client ON messages (client_id, id);
CREATE INDEX messages_header_from ON messages (lower(header_from), id);
DROP INDEX email_queue_in_flight;
CREATE INDEX email_queue_in_flight ON email_queue (mailbox_id, lease_expires_at) WHERE status = 'sending';
