"""What still needs a thing that somebody wants to remove: the living that hang on it, and mail under way."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from relayd.errors import Refusal
from relayd.store.connection import Connection


@dataclass(frozen=True, slots=True)
class LiveMail:
    """How many queue entries are not settled yet, by state."""

    pending: int
    queued: int
    sending: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.pending + self.queued + self.sending

    def __str__(self) -> str:
        states = (("queued", self.queued), ("sending", self.sending), ("pending", self.pending))
        return ", ".join(f"{count} {state}" for state, count in states if count)


# One probe of an index for each state. Indexes: email_queue_live, mailbox_lanes_mailbox_id_class_key, email_queue_due,
# email_queue_in_flight.
COUNT_OF_MAILBOXES = """
SELECT (SELECT count(*) FROM email_queue
         WHERE (status IN ('pending', 'queued', 'sending')) IS TRUE AND status = 'pending'
           AND mailbox_id = ANY($1::uuid[])) AS pending,
       (SELECT count(*) FROM mailbox_lanes l JOIN email_queue q ON q.lane_id = l.id AND q.status = 'queued'
         WHERE l.mailbox_id = ANY($1::uuid[])) AS queued,
       (SELECT count(*) FROM email_queue WHERE status = 'sending' AND mailbox_id = ANY($1::uuid[])) AS sending
"""

# In flight through this upstream, though its mailbox may have another by now. Index: email_queue_in_flight.
COUNT_OF_UPSTREAM = """
SELECT 0 AS pending, 0 AS queued, count(*) AS sending FROM email_queue WHERE status = 'sending' AND upstream_id = $1
"""


async def mail_of_mailboxes(connection: Connection, mailbox_ids: Sequence[UUID]) -> LiveMail:
    """Live mail of these mailboxes, removed ones too."""
    row = await connection.fetchrow(COUNT_OF_MAILBOXES, mailbox_ids)
    assert row is not None
    return LiveMail(**dict(row))


async def mail_of_upstream(connection: Connection, upstream_id: UUID) -> LiveMail:
    """What is being handed to this upstream just now."""
    row = await connection.fetchrow(COUNT_OF_UPSTREAM, upstream_id)
    assert row is not None
    return LiveMail(**dict(row))


def refuse_if_needed(
    what: str, children: Sequence[tuple[int, str, str]], mail: LiveMail, *, list_mail: str | None
) -> None:
    """Raises Refusal with all counts and the first next step.

    `children` are (how many, what one is called, the command that lists them); `list_mail` lists the live mail.
    """
    present = [child for child in children if child[0]]
    if not present and not mail.total:
        return
    counts = [plural(count, noun) for count, noun, _ in present]
    if mail.total:
        counts.append(f"{plural(mail.total, 'recipient')} still to be sent to ({mail})")
    step = f"remove those first: {present[0][2]}" if present else f"let it go out or cancel it first: {list_mail}"
    raise Refusal(f"{what} is still needed by {' and '.join(counts)}", hint=step)


def plural(count: int, noun: str) -> str:
    """`1 domain`, `2 domains`, `2 mailboxes`."""
    ending = "" if count == 1 else "es" if noun.endswith("x") else "s"
    return f"{count} {noun}{ending}"
