-- Which DKIM-Signature fields an upstream accepts, where its host's name does not say so.

ALTER TABLE email_configurations
  ADD COLUMN dkim text CHECK (dkim IN ('all', 'rsa', 'none'));  -- NULL: as is known of its host; rsa: one field, by RSA
