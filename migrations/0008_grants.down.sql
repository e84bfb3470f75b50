DROP TRIGGER email_configurations_tokens ON email_configurations;
DROP FUNCTION relayd_forget_tokens;
DROP TABLE oauth_tokens;
