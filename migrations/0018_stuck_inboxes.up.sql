-- Which message an inbox's looks end at, and how many in a row: told apart from looks that fail for another reason.

ALTER TABLE mailbox_inboxes
  ADD COLUMN stuck_key text CHECK (length(stuck_key) <= 200),  -- its name in the inbox; NULL: none
  ADD COLUMN stuck_looks integer NOT NULL DEFAULT 0 CHECK (stuck_looks >= 0);
DROP TRIGGER mailbox_inboxes_audit_trigger ON mailbox_inboxes;
CREATE TRIGGER mailbox_inboxes_audit_trigger
  AFTER INSERT OR DELETE
     OR UPDATE OF kind, imap_host, imap_port, imap_tls, imap_ca_file, imap_username, imap_password_sealed, imap_folder
  ON mailbox_inboxes FOR EACH ROW EXECUTE FUNCTION relayd_audit(
    'email_address',
    'uid_validity,last_uid,read_to,lease_expires_at,next_pull_at,failures,last_error,last_pulled_at,stuck_key,stuck_looks',
    'imap_password_sealed');
