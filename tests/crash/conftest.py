"""The fixtures of the end-to-end tests: a node on a database of the test's own."""

from tests.e2e.conftest import house, make_house

__all__ = ["house", "make_house"]
