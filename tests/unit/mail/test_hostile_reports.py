"""What strangers write to cost time: each report is read within its budget of steps, which do not multiply."""

import pytest

from relayd.mail import report_reader
from relayd.mail.report import Bounce
from relayd.mail.work_budget import REPORT_STEPS, WorkBudget
from tests.reports.hostile import OCTETS, SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_a_hostile_shape_stays_within_the_budget(name: str) -> None:
    content = SHAPES[name]()
    budget = WorkBudget(REPORT_STEPS)
    report_reader.read(content, budget)
    assert budget.spent <= REPORT_STEPS and len(content) <= 1.2 * OCTETS


def test_there_are_at_least_fifty_shapes() -> None:
    assert len(SHAPES) >= 50


@pytest.mark.parametrize(
    "line",
    ["a@b.cc 550 x", "r{}@b.cc 550 x", "r{}@b.cc:", "r7@b.cc 550 5.1.1 x", "r1@b.cc r2@b.cc 550 x", "550 5.1.1 no", ""],
)
def test_steps_do_not_grow_with_recipients_times_lines(line: str) -> None:
    def steps(recipients: int, lines: int) -> int:
        text = b"".join(f"{line.format(number % 50)}\r\n".encode() for number in range(lines))
        fields = b"".join(
            f"Final-Recipient: rfc822; r{number}@b.cc\r\nAction: failed\r\n\r\n".encode()
            for number in range(recipients)
        )
        content = (
            b"From: MAILER-DAEMON@mx.example\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\n"
            + text
            + b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n"
            + fields
        )
        budget = WorkBudget(10**9)
        assert isinstance(report_reader.read(content, budget), Bounce)
        return budget.spent

    assert steps(50, 1300) <= 30 * 1300


def test_a_spent_budget_leaves_recipients_without_text() -> None:
    content = SHAPES["recipients in turn, empty lines between"]()
    whole = report_reader.read(content, WorkBudget(REPORT_STEPS))
    nothing = report_reader.read(content, WorkBudget(0))
    assert isinstance(whole, Bounce) and isinstance(nothing, Bounce)
    assert [each.address for each in nothing.recipients] == [each.address for each in whole.recipients]
    assert not any(each.diagnostic for each in nothing.recipients)
