"""Estimates against what then happens: a queue under every kind of limit, and a clock that is moved through days."""
