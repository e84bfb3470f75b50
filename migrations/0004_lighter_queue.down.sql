DROP TRIGGER email_queue_updated_at ON email_queue;
CREATE TRIGGER email_queue_updated_at BEFORE UPDATE ON email_queue
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE INDEX messages_client ON messages (client_id, id);
CREATE INDEX messages_header_from ON messages (lower(header_from), id);
DROP INDEX email_queue_in_flight;
CREATE INDEX email_queue_in_flight ON email_queue (mailbox_id, lease_expires_at) WHERE status = 'sending';
