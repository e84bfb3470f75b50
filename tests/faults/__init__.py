"""What Postgres does to relayd when it is away, full, crowded, silent, or somebody else; and that nothing is lost."""
