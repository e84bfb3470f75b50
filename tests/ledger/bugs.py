"""Each function here plants one bug in this process; `planted` takes it out again. It raises if it no longer fits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from relayd.rules.outcome import Uncertain
from relayd.rules.settlement import settle as decide
from relayd.store import attempts, budget, claim, settlement, windows

Rewrite = tuple[Any, str, str, str]

_BUDGET_LOCK = "WHERE b.id IN (SELECT unnest(lane.budget_ids) FROM lane)\n     FOR NO KEY UPDATE OF b SKIP LOCKED)"

# A statement's text, and what takes its place.
REWRITES: dict[str, tuple[Rewrite, ...]] = {
    # Reads what is used, then writes: budgets are not locked between the two.
    "naive-claim": ((claim, "CLAIM", _BUDGET_LOCK, _BUDGET_LOCK.partition("\n")[0] + ")"),),
    # A rolling unit is freed in the minute of its reply, a day later.
    "freed-a-minute-early": ((budget, "SETTLE", " + interval '1 minute'", ""),),
    # A new window begins with nothing.
    "turn-forgets-flight": ((windows, "ROLL", "ELSE turned.flying END", "ELSE 0 END"),),
    # What ends after the turn is settled as if the window had not turned.
    "settle-ignores-turn": (
        (
            settlement,
            "SETTLE",
            "AND CASE WHEN b.is_rolling THEN $18 ELSE b.turns_at <= clock.now END",
            "AND $18 AND b.is_rolling",
        ),
    ),
    # Where the clock goes back a window begins anew.
    "back-opens-anew": (
        (
            windows,
            "ROLL",
            "WHEN turned.went_back THEN b.units_used + b.units_before",
            "WHEN turned.went_back THEN turned.flying",
        ),
    ),
    # A claim that was made before the limit was lowered begins.
    "start-without-look": ((attempts, "START", "b.units_used > b.unit_limit OR ", ""),),
    # A claim that was made before there was the limit begins.
    "start-without-new-budgets": ((attempts, "START", "COALESCE(q.reserved_budgets, '{}') @> l.budget_ids", "true"),),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """The bug of that name in this process; None for none."""
    if name is None:
        yield
    elif name == "refund-doubts":
        with patch("tests.ledger.player.decide", _generous):
            yield
    else:
        before = {(module, constant): getattr(module, constant) for module, constant, _, _ in REWRITES[name]}
        try:
            for module, constant, old, new in REWRITES[name]:
                _rewrite(module, constant, old, new)
            yield
        finally:
            for (module, constant), text in before.items():
                setattr(module, constant, text)


def _generous(outcome: Any, *arguments: Any, **settings: Any) -> Any:
    # The unit of an attempt that may have delivered is given back.
    decided = decide(outcome, *arguments, **settings)
    return replace(decided, returns_unit=True) if isinstance(outcome, Uncertain) else decided


def _rewrite(module: Any, constant: str, old: str, new: str) -> None:
    text: str = getattr(module, constant)
    if text.count(old) != 1:
        raise ValueError(f"{module.__name__}.{constant} has {text.count(old)} times: {old}")
    setattr(module, constant, text.replace(old, new))


BUGS = ("refund-doubts", *REWRITES)
