"""What becomes of attempts whose reply never comes: how many are recorded, resolved, doubled, lost."""
