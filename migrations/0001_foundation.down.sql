DROP FUNCTION relayd_audit();
DROP FUNCTION relayd_actor();
DROP TABLE audit_logs;
DROP FUNCTION update_updated_at_column();
DROP FUNCTION relayd_uuid();
DROP FUNCTION relayd_now();
DROP TABLE relayd_state;
