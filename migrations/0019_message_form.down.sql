DROP TRIGGER email_mailboxes_updated_at ON email_mailboxes;
CREATE TRIGGER email_mailboxes_updated_at
  BEFORE UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                   daily_send_limit, time_zone, deleted_at, daily_limit_cap, warmup_enabled, warmup_started_at,
                   warmup_paused_at, warmup_completed_at, warmup_stage, warmup_schedule, warmup_used_days_only,
                   warmup_note, limit_window, is_paced, mail_class ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER email_mailboxes_audit_trigger ON email_mailboxes;
CREATE TRIGGER email_mailboxes_audit_trigger
  AFTER INSERT OR DELETE
     OR UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                  daily_send_limit, time_zone, deleted_at, daily_limit_cap, warmup_enabled, warmup_started_at,
                  warmup_paused_at, warmup_completed_at, warmup_stage, warmup_schedule, warmup_used_days_only,
                  warmup_note, limit_window, is_paced, mail_class ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION relayd_audit(
    'email_address', 'current_daily_sends,window_ends_at,bounce_rate,spam_rate,reply_rate', '');
ALTER TABLE email_mailboxes DROP COLUMN eight_bit;
ALTER TABLE smtp_credentials DROP COLUMN long_lines;
ALTER TABLE clients DROP COLUMN repeated_recipients;
