"""Bounces: a delivery status notification (RFC 3464) a message that failed, prepared and signed as any message is.

It goes to the reverse-path with the null reverse-path, in the failed entry's mailbox's `dsn` lane.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol
from uuid import UUID

from relayd.intake.signer import Signer
from relayd.mail import dsn, headers, trace
from relayd.mail.address import Address
from relayd.mail.dsn import FailedRecipient
from relayd.rules.settlement import Settlement
from relayd.store import bounces, queue
from relayd.store.bounces import FailedMessage
from relayd.store.ids import new_id
from relayd.store.pool import Database

HEAD_OCTETS = 64 * 1024


class Failure(Protocol):
    """A final failure, as delivery knows it."""

    @property
    def queue_id(self) -> UUID: ...
    @property
    def recipient(self) -> Address: ...
    @property
    def settlement(self) -> Settlement: ...


class Bouncer:
    """Composes bounces. Raises StoreUnavailable, SealError."""

    def __init__(
        self, database: Database, signer: Signer, *, host: str, max_retries: int, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._signer = signer
        self._host = host
        self._max_retries = max_retries
        self._now = now

    async def compose(self, failures: Iterable[Failure]) -> list[queue.NewMessage]:
        """One bounce a message; none for a message with the null reverse-path: a failed bounce makes no bounce."""
        by_message: defaultdict[UUID, list[Failure]] = defaultdict(list)
        for failure in failures:
            by_message[failure.queue_id].append(failure)
        async with self._database.connection() as connection:
            messages = await bounces.load(connection, sorted(by_message), head_octets=HEAD_OCTETS)
        return [await self._bounce(message, by_message[queue_id]) for queue_id, message in messages.items()]

    async def _bounce(self, message: FailedMessage, failures: list[Failure]) -> queue.NewMessage:
        now, queue_id = self._now(), new_id()
        sender = Address("MAILER-DAEMON", message.domain.domain)
        message_id = f"<{queue_id}@{message.domain.domain}>"
        content = dsn.compose(
            reporting_mta=self._host,
            sender=sender,
            to=message.reverse_path,
            original_headers=_header_block(message.head),
            envelope_id=None,
            arrived_at=message.arrived_at,
            failed=[_failed_recipient(failure, now) for failure in failures],
            message_id=message_id,
            date=trace.date_text(now),
            queue_id=str(message.queue_id),
            smtputf8=message.smtputf8,
        )
        content = await self._signer.sign(message.domain, content, headers.scan(content), now)
        return queue.NewMessage(
            queue_id=queue_id,
            client_id=message.client_id,
            mailbox_id=message.mailbox_id,
            lane_id=message.dsn_lane_id,
            credential_id=None,
            origin="dsn",
            reverse_path=None,
            header_from=sender,
            message_id_header=message_id,
            subject="Undelivered Mail Returned to Sender",
            content=content,
            smtputf8=message.smtputf8 and not content.isascii(),
            body_8bitmime=not content.isascii(),
            parent_id=message.queue_id,
            helo="",
            peer="",
            max_retries=self._max_retries,
            entries=(queue.NewEntry(new_id(), message.reverse_path),),
        )


def _failed_recipient(failure: Failure, now: datetime) -> FailedRecipient:
    cause = failure.settlement.cause
    if cause.enhanced and cause.enhanced.startswith("5"):
        status = cause.enhanced
    elif failure.settlement.reason.startswith("given up"):
        status = "4.4.7"  # RFC 3463 3.5: delivery time expired
    else:
        status = "5.0.0"
    diagnostic = " ".join(part for part in (str(cause.code or ""), cause.text) if part)
    return FailedRecipient(
        recipient=failure.recipient,
        status=status,
        diagnostic=diagnostic or None,
        remote_mta=None,
        action="failed",
        last_attempt_at=now,
    )


def _header_block(head: bytes) -> bytes:
    """The header block, or as many whole lines of it as were read."""
    end = head.find(b"\r\n\r\n")
    if end >= 0:
        return head[: end + 2]
    return head[: head.rfind(b"\r\n") + 2] if b"\r\n" in head else b""
