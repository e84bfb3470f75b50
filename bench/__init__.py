"""Measure relayd beside Postfix, everything on loopback and on one machine. `make bench`; results in RESULTS.md."""
