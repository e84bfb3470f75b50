"""Two proofs of the ledger of budgets: a race of many claimers, and random histories beside a record of our own."""
