"""Which cases there are, in which order, and what they need."""

import pytest

from bench.queue_cost import case
from bench.queue_cost.case import Case


def test_every_size_up_to_the_largest_is_measured_over_each_number_of_mailboxes():
    found = case.cases(100_000, (1, 10_000))
    assert [(each.backlog, each.mailboxes) for each in found] == [
        (0, 1),
        (10_000, 1),
        (100_000, 1),
        (0, 10_000),
        (10_000, 10_000),
        (100_000, 10_000),
    ]


def test_rounds_interleave_the_cases_and_turn_back_every_other_time():
    first, second = Case(0, 1), Case(10_000, 1)
    assert list(case.interleaved([first, second], 3)) == [
        (1, first),
        (1, second),
        (2, second),
        (2, first),
        (3, first),
        (3, second),
    ]


@pytest.mark.parametrize(
    ("backlog", "mailboxes", "recipients"), [(0, 1, 1), (10_000, 10_000, 1), (100_000, 10_000, 10), (1_000_000, 1, 200)]
)
def test_a_message_has_as_many_recipients_as_its_mailbox_has_entries_up_to_a_cap(backlog, mailboxes, recipients):
    assert Case(backlog, mailboxes).recipients_per_message == recipients


def test_each_case_has_a_database_of_its_own():
    names = [each.database for each in case.cases(case.LARGEST)]
    assert len(set(names)) == len(names)
