"""Whose mail arrives under the reverse-path that relayd gave it."""

# The others write the account's own address in its place, or take no domain that they do not know.
KEEPS_REVERSE_PATH = frozenset({"smtp_relay", "capture"})
