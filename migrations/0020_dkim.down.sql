ALTER TABLE email_configurations DROP COLUMN dkim;
