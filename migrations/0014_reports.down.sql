ALTER TABLE warmup_stats DROP COLUMN emails_bounced_later;
DROP TABLE inbound_reports;
DROP TABLE mailbox_inboxes;
DROP TRIGGER email_domains_bounce_updated_at ON email_domains;
DROP INDEX email_domains_bounce_domain;
ALTER TABLE email_domains DROP COLUMN bounce_domain;
