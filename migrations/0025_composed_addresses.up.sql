-- An address is known by its composed form (NFC, RFC 6532 3.1). Earlier versions stored keys as they were written. A row
-- whose composed form is taken stays as it is. Only a UTF-8 database can hold such addresses.
DO $$
BEGIN
  IF current_setting('server_encoding') <> 'UTF8' THEN
    RETURN;
  END IF;
  UPDATE email_mailboxes m SET email_address = normalize(m.email_address, NFC)
   WHERE m.deleted_at IS NULL AND m.email_address IS NOT NFC NORMALIZED
     AND NOT EXISTS (SELECT FROM email_mailboxes x WHERE x.id <> m.id AND x.deleted_at IS NULL
                        AND lower(x.email_address) = lower(normalize(m.email_address, NFC)));
  UPDATE smtp_credentials SET senders = ARRAY(SELECT normalize(sender, NFC) FROM unnest(senders) AS t (sender))
   WHERE array_to_string(senders, ' ') IS NOT NFC NORMALIZED;
  UPDATE mail_routes SET header_from = normalize(header_from, NFC) WHERE header_from IS NOT NFC NORMALIZED;
  -- The fingerprint stays that of the decomposed form; workers look for both.
  UPDATE suppressions s SET address = normalize(s.address, NFC)
   WHERE s.address IS NOT NFC NORMALIZED
     AND NOT EXISTS (SELECT FROM suppressions x
                      WHERE x.client_id = s.client_id AND x.address = normalize(s.address, NFC));
END $$;
