"""Options that say which queue entries a command means."""

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from relayd.cli.parameters import given


@dataclass(frozen=True)
class Filters:
    """What is given must all hold.

    Parameters
    ----------
    state
        pending, queued, sending, sent, failed, bounced or spam; may be repeated.
    mailbox
        Of this sending mailbox.
    domain
        Of the mailboxes of this domain.
    recipient
        To this address, or to @domain.
    older_than
        Accepted longer ago than this: 15m, 2h, 3d.
    younger_than
        Accepted less long ago than this.
    client
        Of this client.
    upstream
        That go, or went, to this upstream.
    """

    state: Annotated[list[str], Parameter(negative="")] | None = None
    mailbox: str | None = None
    domain: str | None = None
    recipient: str | None = None
    older_than: str | None = None
    younger_than: str | None = None
    client: str | None = None
    upstream: str | None = None


# Its fields are options of the command itself. None where no option was given.
Selected = Annotated[Filters | None, Parameter(name="*")]


def selecting(ids: tuple[str, ...], filters: Filters | None) -> dict[str, Any]:
    """As the control socket takes it."""
    chosen = filters or Filters()
    return given(
        {
            "ids": list(ids) or None,
            "states": chosen.state,
            "mailbox": chosen.mailbox,
            "domain": chosen.domain,
            "recipient": chosen.recipient,
            "older_than": chosen.older_than,
            "younger_than": chosen.younger_than,
            "client": chosen.client,
            "upstream": chosen.upstream,
        }
    )
