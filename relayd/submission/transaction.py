"""A mail transaction: what MAIL and RCPT have said so far, until it becomes an envelope."""

from relayd.intake.return_paths import ReportAddress
from relayd.mail.envelope import NOTHING_SAID, Envelope
from relayd.submission.door import Identity
from relayd.submission.path import Fault, Mail, Recipient


class Transaction:
    """One reverse-path and its recipients. The identity is the one that MAIL was allowed to.

    Or the addresses to which a report goes. With a `refusal` it can be nothing else: that is why MAIL would have been
    refused.
    """

    def __init__(
        self, identity: Identity | None, mail: Mail, refusal: Fault | None = None, *, postmaster_domain: str
    ) -> None:
        self.identity = identity
        self.mail = mail
        # In order, and once each: a recipient that is named twice, in whatever spelling, gets one copy, with what was
        # asked for it first.
        self._recipients: dict[str, Recipient] = {}
        self.refusal = refusal
        # RCPT commands that were taken, repeated recipients too, and those refused because the cap was reached.
        self.taken = self.excess = 0
        self.postmaster_domain = postmaster_domain  # of <Postmaster> alone
        self.report_addresses: list[ReportAddress] = []

    @property
    def recipients(self) -> int:
        """How many recipients there are."""
        return len(self._recipients)

    def add(self, recipient: Recipient) -> None:
        """Add a recipient."""
        self._recipients.setdefault(recipient.forward_path.plain, recipient)

    def add_report(self, address: ReportAddress) -> None:
        """Add an address that takes reports, once, however often and in whatever spelling it is named."""
        if all(address.meaning != known.meaning for known in self.report_addresses):
            self.report_addresses.append(address)

    def envelope(self, content: bytes) -> Envelope:
        """The envelope of this content. 8-bit content is called so, whatever BODY said."""
        notices = tuple(recipient.notice for recipient in self._recipients.values())
        return Envelope(
            reverse_path=self.mail.reverse_path,
            forward_paths=tuple(recipient.forward_path for recipient in self._recipients.values()),
            smtputf8=self.mail.smtputf8,
            body_8bitmime=self.mail.body_8bitmime or not content.isascii(),
            notices=notices if any(notice != NOTHING_SAID for notice in notices) else (),
            dsn_ret=self.mail.dsn_ret,
            envelope_id=self.mail.envelope_id,
        )


def transmission_type(*, is_extended: bool, smtputf8: bool, is_encrypted: bool, is_authenticated: bool) -> str:
    """The word after `with` in the Received header (RFC 3848, RFC 6531 4.3)."""
    if not is_extended:
        return "SMTP"
    kind = "UTF8SMTP" if smtputf8 else "ESMTP"
    return kind + "S" * is_encrypted + "A" * is_authenticated
