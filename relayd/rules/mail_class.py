"""Which class a message is of, and so which lane of its mailbox it waits in. Pure."""

from enum import StrEnum

from relayd.rules.states import LaneClass


class MailClass(StrEnum):
    """email_mailboxes.mail_class, smtp_credentials.mail_class."""

    TRANSACTIONAL = "transactional"
    BULK = "bulk"

    @property
    def lane_class(self) -> LaneClass:
        """The lane that such mail waits in."""
        return LaneClass.BULK if self is MailClass.BULK else LaneClass.MAIL


def mail_class(*, asked: MailClass | None, credential: MailClass | None, mailbox: MailClass) -> MailClass:
    """What the message asks for, else what its credential says, else the mailbox.

    A message may always lower itself; a credential that is bound to bulk cannot be raised by what it sends.
    """
    if credential is MailClass.BULK:
        return MailClass.BULK
    return asked or credential or mailbox
