"""Provider `google_workspace` over SMTP: as whom a connection is opened. All the rest is a smarthost's.

smtp-relay.gmail.com knows a customer by address and by the name in EHLO, which has to be a domain of his;
smtp.gmail.com by the account that logs in, which is the mailbox where a service account speaks for all of them.
"""

from collections.abc import Callable

from relayd.mail.envelope import Transmission
from relayd.upstream.smarthost import Identity
from relayd.upstream.verdict import Unfit

Identify = Callable[[Transmission], Identity]


def identify(*, greets_as_domain: bool, logs_in_as_mailbox: bool) -> Identify:
    """`greets_as_domain`: EHLO with the sending domain's name. `logs_in_as_mailbox`: one login for each mailbox."""

    def identity(transmission: Transmission) -> Identity:
        name = _domain(transmission) if greets_as_domain else None
        account = _account(transmission) if logs_in_as_mailbox else None
        return Identity(name, account, account)

    return identity


def _domain(transmission: Transmission) -> str | None:
    """The mailbox's, else the reverse-path's; None where there is none that EHLO could carry."""
    for address in (transmission.mailbox, transmission.reverse_path):
        if address is not None and not address.domain.startswith("["):
            return address.ascii_domain
    return None


def _account(transmission: Transmission) -> str:
    address = transmission.mailbox or transmission.reverse_path
    if address is None or not address.is_ascii:
        raise Unfit("nobody to log in as: the mail has no mailbox with an ASCII address")
    return address.plain
