"""What a look into a doubt means, and when to look again."""

from datetime import UTC, datetime, timedelta

import pytest

from relayd.rules.doubt import Conclusion, LookPolicy, Seen, Sight, Verdict, Way, conclude, way_of

ATTEMPTED = datetime(2026, 1, 31, 12, tzinfo=UTC)
POLICY = LookPolicy(first_seconds=60, looks=5, longest_seconds=1800, give_up_after_seconds=86400)


def after(sight: Sight, *, looks: int = 0, seconds: float = 60) -> Verdict:
    now = ATTEMPTED + timedelta(seconds=seconds)
    return conclude(Seen(sight, "text"), looks=looks, attempted_at=ATTEMPTED, now=now, policy=POLICY)


def test_absent_is_asked_again_after_twice_as_long_and_then_means_not_sent() -> None:
    at, times = 60.0, []
    for looks in range(4):
        verdict = after(Sight.ABSENT, looks=looks, seconds=at)
        assert verdict.conclusion is Conclusion.LOOK_AGAIN and verdict.counts and verdict.look_at
        at = (verdict.look_at - ATTEMPTED).total_seconds()
        times.append(at)
    assert times == [180, 420, 900, 1860], "half an hour in all"
    assert after(Sight.ABSENT, looks=4, seconds=at).conclusion is Conclusion.RETRY


def test_what_cannot_be_asked_is_asked_until_a_day_is_over_and_never_counts_as_absent() -> None:
    verdict = after(Sight.UNREACHABLE, looks=4, seconds=600)
    assert verdict == Verdict(Conclusion.LOOK_AGAIN, ATTEMPTED + timedelta(seconds=1200), counts=False)
    late = after(Sight.UNREACHABLE, seconds=80_000)
    assert late.look_at == ATTEMPTED + timedelta(seconds=81_800), "at least each half hour"
    assert after(Sight.UNREACHABLE, seconds=86_400).conclusion is Conclusion.UNDECIDED


@pytest.mark.parametrize(
    ("sight", "conclusion"),
    [
        (Sight.SENT, Conclusion.SENT),
        (Sight.NOT_SENT, Conclusion.RETRY),
        (Sight.UNKNOWABLE, Conclusion.UNDECIDED),
    ],
)
def test_what_is_known_is_decided_at_once(sight: Sight, conclusion: Conclusion) -> None:
    assert after(sight).conclusion is conclusion


def test_only_gmail_can_be_asked() -> None:
    assert way_of("google_workspace", "gmail_api") is Way.REFERENCE
    assert way_of("google_workspace", "xoauth2") is Way.MESSAGE_ID
    assert way_of("google_workspace", "smtp-relay") is None, "its copies are in nobody's Sent"
    assert way_of("smtp_relay", None) is None
