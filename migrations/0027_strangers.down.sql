ALTER TABLE clients DROP COLUMN foreign_senders;
