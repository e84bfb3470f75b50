"""Which chores a node does."""

from types import SimpleNamespace
from typing import Any

from relayd.config.settings import Settings
from relayd.daemon.chores import chores


def test_every_chore_is_done_now_and_then() -> None:
    nobody: Any = SimpleNamespace(of_lapsed_leases=None, of_overdue=None)
    settings = Settings.model_validate({"database": {"dsn": "postgresql://relayd@/relayd"}})
    every = {each.name: each.every_seconds for each in chores(nobody, nobody, nobody, settings, lambda: None)}
    assert every.keys() >= {"reclaim", "resolve_uncertain", "give_up", "wake_lanes", "steer", "reroute", "prune"}
    assert min(every.values()) > 0
