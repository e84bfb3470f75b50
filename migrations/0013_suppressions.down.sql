DROP INDEX email_queue_unwarned;
ALTER TABLE email_queue DROP COLUMN waits_since, DROP COLUMN delay_warned_at;
DROP TABLE client_events;
DROP TABLE suppressions;
DROP TRIGGER clients_updated_at ON clients;
ALTER TABLE clients DROP COLUMN bounces, DROP COLUMN suppressed, DROP COLUMN suppression_days;
CREATE TRIGGER clients_updated_at
  BEFORE UPDATE OF name, tier, status, may_send_bounces, deleted_at, daily_send_limit, limit_window, time_zone,
                   bulk_reserve_percent ON clients
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
