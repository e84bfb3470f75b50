"""What an attempt tells of its upstream."""

import pytest

from relayd.rules.breaker import Alive, Failing, Sign, Unfit, sign_of
from relayd.rules.outcome import Cause, Deferred, Failed, Outcome, Postponed, Scope, Sent, Stage, Uncertain

CAUSE = Cause(Stage.RCPT, "said")
LOCAL = Cause(Stage.LOCAL, "not asked")


@pytest.mark.parametrize(
    ("outcomes", "sign"),
    [
        ([Sent(CAUSE)], Alive()),
        ([Failed(Scope.RECIPIENT, CAUSE)], Alive()),
        ([Deferred(Scope.RECIPIENT, CAUSE)], Alive()),
        ([Postponed(Scope.MAILBOX, CAUSE, 60)], Alive()),
        ([Deferred(Scope.UPSTREAM, CAUSE)], Failing(CAUSE)),
        ([Failed(Scope.RECIPIENT, CAUSE), Deferred(Scope.UPSTREAM, CAUSE)], Failing(CAUSE)),
        ([Deferred(Scope.UPSTREAM, CAUSE), Postponed(Scope.UPSTREAM, CAUSE, 7)], Unfit(CAUSE, 7)),
        # Nothing was asked, or it may have taken what it did not answer.
        ([Failed(Scope.MESSAGE, LOCAL)], None),
        ([Postponed(Scope.MESSAGE, LOCAL, 0)], None),
        ([Uncertain(CAUSE)], None),
        # Unless it said of itself that it is in trouble.
        ([Uncertain(CAUSE, upstream_failed=True)], Failing(CAUSE)),
    ],
)
def test_only_what_speaks_of_the_upstream_counts_against_it(outcomes: list[Outcome], sign: Sign | None) -> None:
    assert sign_of(outcomes) == sign
