CREATE OR REPLACE FUNCTION sync_mailbox_lanes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- First the locks: of two that change a mailbox and its domain at once, the second must see what the first has done.
  PERFORM FROM mailbox_lanes l JOIN email_mailboxes m ON m.id = l.mailbox_id
    WHERE CASE TG_TABLE_NAME WHEN 'email_mailboxes' THEN m.id = NEW.id
                             WHEN 'email_domains' THEN m.domain_id = NEW.id
                             ELSE m.client_id = NEW.id END
    ORDER BY l.id FOR NO KEY UPDATE OF l;
  INSERT INTO mailbox_lanes AS lane (mailbox_id, class, upstream_id, held)
  SELECT m.id, k.class, m.upstream_id,
         m.status NOT IN ('warming', 'active') OR d.status NOT IN ('pending', 'active') OR c.status <> 'active'
    FROM email_mailboxes m
    JOIN email_domains d ON d.id = m.domain_id
    JOIN clients c ON c.id = m.client_id
    CROSS JOIN (VALUES ('mail'), ('dsn')) AS k (class)
   WHERE CASE TG_TABLE_NAME WHEN 'email_mailboxes' THEN m.id = NEW.id
                            WHEN 'email_domains' THEN m.domain_id = NEW.id
                            ELSE m.client_id = NEW.id END
   ORDER BY m.id, k.class
  ON CONFLICT (mailbox_id, class) DO UPDATE
     SET upstream_id = EXCLUDED.upstream_id, held = EXCLUDED.held,
         blocked_until = '-infinity', blocked_reason = NULL;
  RETURN NULL;
END
$$;
DROP TRIGGER email_queue_updated_at ON email_queue;
CREATE TRIGGER email_queue_updated_at BEFORE UPDATE ON email_queue
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP INDEX email_queue_live;
CREATE INDEX email_queue_live ON email_queue (status, created_at) WHERE status IN ('pending', 'queued', 'sending');
CREATE INDEX messages_client ON messages (client_id, id);
CREATE INDEX messages_header_from ON messages (lower(header_from), id);
DROP INDEX email_queue_in_flight;
CREATE INDEX email_queue_in_flight ON email_queue (mailbox_id, lease_expires_at) WHERE status = 'sending';
