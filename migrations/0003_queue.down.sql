DROP TABLE email_delivery_logs, email_queue, message_bodies, messages;
