DROP VIEW email_mailbox_usage;
ALTER TABLE email_domains DROP COLUMN default_mailbox_id;
DROP TABLE smtp_credentials, mailbox_lanes, email_mailboxes, dkim_keys, email_domains, email_configurations, clients;
DROP FUNCTION sync_mailbox_lanes();
