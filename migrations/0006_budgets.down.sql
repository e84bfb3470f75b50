DROP VIEW email_mailbox_usage;
DROP VIEW budget_usage;
DROP TRIGGER email_mailboxes_quota ON email_mailboxes;
DROP TRIGGER email_configurations_quota ON email_configurations;
DROP TRIGGER email_mailboxes_budgets ON email_mailboxes;
DROP TRIGGER email_mailboxes_lanes ON email_mailboxes;
DROP TRIGGER email_domains_budget ON email_domains;
DROP TRIGGER clients_budgets ON clients;

-- Bulk mail goes on in the mailbox's one line; what is in flight and counted holds a unit of its window again.
UPDATE email_queue q SET lane_id = mail.id
  FROM mailbox_lanes bulk JOIN mailbox_lanes mail ON mail.mailbox_id = bulk.mailbox_id AND mail.class = 'mail'
 WHERE bulk.class = 'bulk' AND q.lane_id = bulk.id;
DELETE FROM mailbox_lanes WHERE class = 'bulk';
UPDATE email_mailboxes m SET current_daily_sends = b.units_used, window_ends_at = b.turns_at
  FROM budgets b WHERE b.owner_id = m.id AND b.kind = 'mailbox_day' AND NOT b.is_rolling;
UPDATE email_mailboxes m
   SET current_daily_sends = b.units_used, window_ends_at = relayd_window_end(relayd_now(), b.span, b.time_zone)
  FROM budgets b WHERE b.owner_id = m.id AND b.kind = 'mailbox_day' AND b.is_rolling;
ALTER TABLE email_queue ADD COLUMN reserved_until timestamptz;
UPDATE email_queue q SET reserved_until = m.window_ends_at
  FROM email_mailboxes m WHERE m.id = q.mailbox_id AND q.status = 'sending' AND cardinality(q.reserved_budgets) > 0;
DROP INDEX email_queue_scheduled;
ALTER TABLE email_queue DROP COLUMN reserved_budgets;
UPDATE mailbox_lanes SET due_at = LEAST(due_at, relayd_now()), blocked_until = '-infinity', blocked_reason = NULL;

DROP TABLE google_workspace_quota;
DROP TABLE budget_releases, budgets;
DROP FUNCTION sync_quota_budgets(), sync_client_budgets(), sync_domain_budget(), sync_mailbox_quota(),
              forget_upstream_quota(), sync_mailbox_budgets(), relayd_used_by(uuid, uuid, uuid, uuid),
              relayd_domain_limit(uuid),
              relayd_first_use(text, uuid, uuid, uuid, uuid, uuid),
              relayd_put_budget(text, uuid, uuid, text, interval, text, integer, integer, integer),
              relayd_window_start(timestamptz, interval, text), relayd_window_end(timestamptz, interval, text),
              relayd_day_start(timestamp, text);
DROP INDEX mailbox_lanes_client, mailbox_lanes_blocked, warmup_stats_day;
ALTER TABLE mailbox_lanes
  DROP CONSTRAINT mailbox_lanes_class_check,
  ADD CONSTRAINT mailbox_lanes_class_check CHECK (class IN ('mail', 'dsn')),
  DROP COLUMN client_id, DROP COLUMN budget_ids, DROP COLUMN blocked_by;
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
DROP FUNCTION relayd_sync_lanes(uuid[]);
CREATE TRIGGER email_mailboxes_lanes
  AFTER INSERT OR UPDATE OF upstream_id, status, daily_send_limit, time_zone, deleted_at ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION sync_mailbox_lanes();

DROP TRIGGER email_mailboxes_updated_at ON email_mailboxes;
CREATE TRIGGER email_mailboxes_updated_at
  BEFORE UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                   daily_send_limit, time_zone, deleted_at, daily_limit_cap, warmup_enabled, warmup_started_at,
                   warmup_paused_at, warmup_completed_at, warmup_stage, warmup_schedule, warmup_used_days_only,
                   warmup_note ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER email_mailboxes_audit_trigger ON email_mailboxes;
CREATE TRIGGER email_mailboxes_audit_trigger
  AFTER INSERT OR DELETE
     OR UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                  daily_send_limit, time_zone, deleted_at, daily_limit_cap, warmup_enabled, warmup_started_at,
                  warmup_paused_at, warmup_completed_at, warmup_stage, warmup_schedule, warmup_used_days_only,
                  warmup_note ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION relayd_audit(
    'email_address', 'current_daily_sends,window_ends_at,bounce_rate,spam_rate,reply_rate', '');
DROP TRIGGER email_domains_updated_at ON email_domains;
CREATE TRIGGER email_domains_updated_at BEFORE UPDATE ON email_domains
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER email_domains_audit_trigger ON email_domains;
CREATE TRIGGER email_domains_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON email_domains
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('domain', '', '');
DROP TRIGGER clients_updated_at ON clients;
CREATE TRIGGER clients_updated_at BEFORE UPDATE ON clients
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER clients_audit_trigger ON clients;
CREATE TRIGGER clients_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON clients
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('name', '', '');
ALTER TABLE messages DROP COLUMN sign_at_attempt;
DROP INDEX email_queue_pool;
ALTER TABLE email_queue DROP COLUMN pool_id;
ALTER TABLE smtp_credentials DROP COLUMN mail_class, DROP COLUMN refuse_after_seconds, DROP COLUMN pool_id;
ALTER TABLE email_domains DROP COLUMN default_pool_id;
DROP TABLE mailbox_pool_members, mailbox_pools;
ALTER TABLE email_mailboxes DROP COLUMN limit_window, DROP COLUMN is_paced, DROP COLUMN mail_class;
ALTER TABLE email_domains
  DROP COLUMN own_daily_limit, DROP COLUMN daily_send_limit, DROP COLUMN current_daily_sends, DROP COLUMN limit_window,
  DROP COLUMN time_zone;
ALTER TABLE clients
  DROP COLUMN daily_send_limit, DROP COLUMN current_daily_sends, DROP COLUMN limit_window, DROP COLUMN time_zone,
  DROP COLUMN bulk_reserve_percent;
CREATE VIEW email_mailbox_usage AS
SELECT m.id AS mailbox_id, m.client_id, m.email_address, m.daily_send_limit, m.time_zone,
       CASE WHEN m.window_ends_at > relayd_now() THEN m.current_daily_sends ELSE 0 END AS used,
       CASE WHEN m.window_ends_at > relayd_now() THEN m.window_ends_at END AS window_ends_at
  FROM email_mailboxes m
 WHERE m.deleted_at IS NULL;
