"""Provider `google_workspace` over SMTP: as whom a connection is opened. All the rest is a smarthost's.

smtp-relay.gmail.com knows a customer by address and by the name in EHLO, which has to be a domain of his;
smtp.gmail.com by the account that logs in, which is the mailbox where a service account speaks for all of them.
"""

from collections.abc import Callable

from relayd.mail.address import Address
from relayd.mail.envelope import Transmission
from relayd.upstream.smarthost import Identity
from relayd.upstream.verdict import Unfit

Identify = Callable[[Transmission], Identity]


def identify(*, greets_as_domain: bool, logs_in_as_mailbox: bool) -> Identify:
    """`greets_as_domain`: EHLO with the sending domain's name. `logs_in_as_mailbox`: one login for each mailbox."""

    def identity(transmission: Transmission) -> Identity:
        return identity_of(
            transmission.mailbox or transmission.reverse_path,
            greets_as_domain=greets_as_domain,
            logs_in_as_mailbox=logs_in_as_mailbox,
        )

    return identity


def identity_of(sender: Address | None, *, greets_as_domain: bool, logs_in_as_mailbox: bool) -> Identity:
    """As whom mail of this sender leaves. Raises Unfit where there is nobody to log in as."""
    name = _domain(sender) if greets_as_domain else None
    account = _account(sender) if logs_in_as_mailbox else None
    return Identity(name, account, account)


def _domain(sender: Address | None) -> str | None:
    """None where there is none that EHLO could carry."""
    return None if sender is None or sender.domain.startswith("[") else sender.ascii_domain


def _account(address: Address | None) -> str:
    if address is None or address.needs_smtputf8:
        raise Unfit("nobody to log in as: the mail has no mailbox with an ASCII address")
    return address.plain
