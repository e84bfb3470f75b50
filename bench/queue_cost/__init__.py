"""What a queue entry costs in Postgres, with how much waiting behind exhausted mailboxes, and as the tables age."""
