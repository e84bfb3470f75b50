"""A Postgres of our own, for `relayd dev` and the tests: found, initialised, started and stopped by relayd."""

from relayd.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
