import pytest

from relayd.rules.mail_class import MailClass, mail_class
from relayd.rules.states import LaneClass

T, B = MailClass.TRANSACTIONAL, MailClass.BULK


@pytest.mark.parametrize(
    ("asked", "credential", "mailbox", "expected"),
    [
        (None, None, T, T),
        (None, None, B, B),
        (None, T, B, T),
        (None, B, T, B),
        (B, None, T, B),
        (B, T, T, B),
        (T, None, B, T),
        (T, T, B, T),
        # What is bound to bulk cannot raise itself.
        (T, B, T, B),
        (T, B, B, B),
    ],
)
def test_the_message_lowers_itself_and_no_bulk_credential_is_raised(
    asked: MailClass | None, credential: MailClass | None, mailbox: MailClass, expected: MailClass
) -> None:
    assert mail_class(asked=asked, credential=credential, mailbox=mailbox) is expected


def test_each_class_has_a_lane() -> None:
    assert {each: each.lane_class for each in MailClass} == {T: LaneClass.MAIL, B: LaneClass.BULK}
