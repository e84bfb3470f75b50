"""Messages and addresses as values. No I/O."""
