DROP TRIGGER email_mailboxes_audit_trigger ON email_mailboxes;
CREATE TRIGGER email_mailboxes_audit_trigger
  AFTER INSERT OR DELETE
     OR UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                  daily_send_limit, time_zone, deleted_at ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('email_address', 'current_daily_sends,window_ends_at', '');
DROP TRIGGER email_mailboxes_updated_at ON email_mailboxes;
CREATE TRIGGER email_mailboxes_updated_at
  BEFORE UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                   daily_send_limit, time_zone, deleted_at ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
ALTER TABLE relayd_state DROP COLUMN tallied_to;
DROP TABLE warmup_stats;
DROP INDEX email_mailboxes_warming;
-- The CHECKs go with their columns.
ALTER TABLE email_mailboxes
  DROP COLUMN infraforge_mailbox_id, DROP COLUMN smartlead_account_id, DROP COLUMN daily_limit_cap,
  DROP COLUMN warmup_enabled, DROP COLUMN warmup_started_at, DROP COLUMN warmup_paused_at,
  DROP COLUMN warmup_completed_at, DROP COLUMN warmup_stage, DROP COLUMN warmup_schedule,
  DROP COLUMN warmup_used_days_only, DROP COLUMN warmup_day, DROP COLUMN judged_from, DROP COLUMN warmup_note, DROP COLUMN bounce_rate,
  DROP COLUMN spam_rate, DROP COLUMN reply_rate;
