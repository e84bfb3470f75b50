"""The sending mailboxes' own inboxes, where bounces and answers land. Read, never changed."""
