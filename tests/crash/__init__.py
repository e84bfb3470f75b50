"""The ledger: what was answered 250, what arrived and what the database says, put side by side after any disaster."""
