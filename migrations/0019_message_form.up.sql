-- What a client, a login and a mailbox choose about the form of their messages.

ALTER TABLE clients
  ADD COLUMN repeated_recipients text NOT NULL DEFAULT 'refuse'  -- several To or Cc fields: refused, or joined into one
    CHECK (repeated_recipients IN ('refuse', 'join'));
ALTER TABLE smtp_credentials
  ADD COLUMN long_lines text NOT NULL DEFAULT 'reencode'  -- lines over 998 octets: made shorter, or refused
    CHECK (long_lines IN ('reencode', 'refuse'));
ALTER TABLE email_mailboxes
  ADD COLUMN eight_bit text NOT NULL DEFAULT 'keep'  -- 8-bit bodies: left as they are, or encoded in ASCII
    CHECK (eight_bit IN ('keep', 'convert'));

-- As before, and the mailbox's new column.
DROP TRIGGER email_mailboxes_updated_at ON email_mailboxes;
CREATE TRIGGER email_mailboxes_updated_at
  BEFORE UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                   daily_send_limit, time_zone, deleted_at, daily_limit_cap, warmup_enabled, warmup_started_at,
                   warmup_paused_at, warmup_completed_at, warmup_stage, warmup_schedule, warmup_used_days_only,
                   warmup_note, limit_window, is_paced, mail_class, eight_bit ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER email_mailboxes_audit_trigger ON email_mailboxes;
CREATE TRIGGER email_mailboxes_audit_trigger
  AFTER INSERT OR DELETE
     OR UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                  daily_send_limit, time_zone, deleted_at, daily_limit_cap, warmup_enabled, warmup_started_at,
                  warmup_paused_at, warmup_completed_at, warmup_stage, warmup_schedule, warmup_used_days_only,
                  warmup_note, limit_window, is_paced, mail_class, eight_bit ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION relayd_audit(
    'email_address', 'current_daily_sends,window_ends_at,bounce_rate,spam_rate,reply_rate', '');
