-- What is done to a message whose Sender or Resent-* fields name an address that its client may not use.
ALTER TABLE clients
  ADD COLUMN foreign_senders text NOT NULL DEFAULT 'refuse'  -- the message is refused, or the fields are removed
    CHECK (foreign_senders IN ('refuse', 'remove'));
