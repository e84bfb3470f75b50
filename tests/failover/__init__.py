"""Upstreams die, come back, or have a silent address: mail goes on, nothing is lost, and one message is the probe."""
