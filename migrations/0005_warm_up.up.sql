-- Warm-up: a new mailbox's daily limit grows along a schedule, as long as its mail is welcome. And what that is judged
-- by: what became of each mailbox's mail, day by day.

ALTER TABLE email_mailboxes
  ADD COLUMN infraforge_mailbox_id text CHECK (length(infraforge_mailbox_id) <= 255),
  ADD COLUMN smartlead_account_id  text CHECK (length(smartlead_account_id) <= 255),
  ADD COLUMN daily_limit_cap       integer CHECK (daily_limit_cap >= 0),  -- the operator's ceiling while warming
  ADD COLUMN warmup_enabled        boolean NOT NULL DEFAULT false,
  ADD COLUMN warmup_started_at     timestamptz,
  ADD COLUMN warmup_paused_at      timestamptz,  -- the stage stands still; mail leaves at its limit
  ADD COLUMN warmup_completed_at   timestamptz,
  ADD COLUMN warmup_stage          integer NOT NULL DEFAULT 0 CHECK (warmup_stage BETWEEN 0 AND 365),  -- days behind it
  ADD COLUMN warmup_schedule       text CHECK (length(warmup_schedule) <= 500),  -- NULL: the configuration's
  ADD COLUMN warmup_used_days_only boolean NOT NULL DEFAULT false,  -- a day counts if something was sent on it
  ADD COLUMN warmup_day            date,         -- the mailbox's day that its stage is of
  ADD COLUMN judged_from           date,         -- what was before this day is paid for
  ADD COLUMN warmup_note           text CHECK (length(warmup_note) <= 500),  -- why it was held or lowered
  -- Shares of what was sent in the last days, from warmup_stats; NULL where nothing was.
  ADD COLUMN bounce_rate           double precision CHECK (bounce_rate BETWEEN 0 AND 1),
  ADD COLUMN spam_rate             double precision CHECK (spam_rate BETWEEN 0 AND 1),
  ADD COLUMN reply_rate            double precision CHECK (reply_rate >= 0),
  ADD CHECK (NOT warmup_enabled OR (warmup_started_at IS NOT NULL AND warmup_day IS NOT NULL));
-- The chore: those whose day may have turned.
CREATE INDEX email_mailboxes_warming ON email_mailboxes (warmup_day)
  WHERE warmup_enabled AND warmup_completed_at IS NULL AND deleted_at IS NULL;

-- A row a mailbox a day, in the mailbox's own zone; counts are recipients.
CREATE TABLE warmup_stats (
  id              uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id       uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  mailbox_id      uuid NOT NULL REFERENCES email_mailboxes ON DELETE CASCADE,
  day             date NOT NULL,
  emails_sent     integer NOT NULL DEFAULT 0,
  emails_received integer NOT NULL DEFAULT 0,   -- replies
  emails_bounced  integer NOT NULL DEFAULT 0,   -- refused for good, at once or by a bounce that came later
  complaints      integer NOT NULL DEFAULT 0,
  warmup_stage    integer,                      -- as the day ended; NULL where the mailbox was not warming
  daily_limit     integer,
  warmup_score    double precision CHECK (warmup_score BETWEEN 0 AND 100),
  inbox_rate      double precision CHECK (inbox_rate BETWEEN 0 AND 1),
  created_at      timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at      timestamptz NOT NULL DEFAULT relayd_now(),
  UNIQUE (mailbox_id, day)
);
CREATE TRIGGER warmup_stats_updated_at BEFORE UPDATE ON warmup_stats
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- The delivery log is counted once, by its time-ordered ids, up to here.
ALTER TABLE relayd_state ADD COLUMN tallied_to uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';

-- As before, and what an operator says of the warm-up. Rates are counters.
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
