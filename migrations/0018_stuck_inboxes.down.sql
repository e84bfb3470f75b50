DROP TRIGGER mailbox_inboxes_audit_trigger ON mailbox_inboxes;
ALTER TABLE mailbox_inboxes DROP COLUMN stuck_key, DROP COLUMN stuck_looks;
CREATE TRIGGER mailbox_inboxes_audit_trigger
  AFTER INSERT OR DELETE
     OR UPDATE OF kind, imap_host, imap_port, imap_tls, imap_ca_file, imap_username, imap_password_sealed, imap_folder
  ON mailbox_inboxes FOR EACH ROW EXECUTE FUNCTION relayd_audit(
    'email_address', 'uid_validity,last_uid,read_to,lease_expires_at,next_pull_at,failures,last_error,last_pulled_at',
    'imap_password_sealed');
