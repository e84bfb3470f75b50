"""Notifications: what is told of a message's fate (RFC 3461, RFC 3464), as a mail, as an event, or both.

A mail is prepared and signed as any message is. It goes to the reverse-path with the null reverse-path, in the `dsn`
lane of the mailbox that it speaks of.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from relayd.intake.signer import Signer
from relayd.mail import dsn, headers, trace, xtext
from relayd.mail.address import Address
from relayd.mail.dsn import ReportedRecipient
from relayd.mail.envelope import RecipientNotice
from relayd.rules.news import Action, News, is_wanted
from relayd.store import bounces, queue
from relayd.store.bounces import ReportedMessage
from relayd.store.client_events import EventKind, NewClientEvent
from relayd.store.ids import new_id
from relayd.store.pool import Database

HEAD_OCTETS = 64 * 1024
# Of a message that is returned whole (RET=FULL). A batch may hold hundreds of them.
WHOLE_OCTETS = 128 * 1024

_KINDS = {Action.FAILED: EventKind.BOUNCED, Action.DELAYED: EventKind.DELAYED, Action.RELAYED: EventKind.RELAYED}


@dataclass(frozen=True, slots=True)
class Notification:
    """A mail to be queued, and the gravest that it tells of."""

    message: queue.NewMessage
    action: Action


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be stored in the transaction of what it speaks of. `entry_ids`: those that somebody is told of."""

    mails: tuple[Notification, ...] = ()
    events: tuple[NewClientEvent, ...] = ()
    entry_ids: frozenset[UUID] = frozenset()


class Bouncer:
    """Composes notifications. Raises StoreUnavailable, SealError."""

    def __init__(
        self, database: Database, signer: Signer, *, host: str, max_retries: int, now: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._signer = signer
        self._host = host
        self._max_retries = max_retries
        self._now = now

    async def compose(self, news: Sequence[News]) -> Told:
        """At most one mail a message, and an event a recipient. Nothing for whom nobody asked to be told of, and
        nothing of a notification: one that fails makes none."""
        async with self._database.connection() as connection:
            asked = await bounces.notices(connection, [each.entry_id for each in news])
            wanted = [each for each in news if is_wanted(each.action, asked[each.entry_id].notify)]
            by_message: defaultdict[UUID, list[News]] = defaultdict(list)
            for each in wanted:
                by_message[each.queue_id].append(each)
            messages = await bounces.load(
                connection, sorted(by_message), head_octets=HEAD_OCTETS, whole_octets=WHOLE_OCTETS
            )
        mails: list[Notification] = []
        events: list[NewClientEvent] = []
        entry_ids: set[UUID] = set()
        for queue_id, message in messages.items():
            its = by_message[queue_id]
            if message.client_wants != "event" and message.reverse_path is not None:
                mails.append(await self._mail(message, message.reverse_path, its, asked))
                entry_ids.update(each.entry_id for each in its)
            if message.client_wants != "mail":
                events += [_event(message, each, asked[each.entry_id], self._now()) for each in its]
                entry_ids.update(each.entry_id for each in its)
        return Told(tuple(mails), tuple(events), frozenset(entry_ids))

    async def _mail(
        self,
        message: ReportedMessage,
        reverse_path: Address,
        news: Sequence[News],
        asked: dict[UUID, RecipientNotice],
    ) -> Notification:
        now, queue_id = self._now(), new_id()
        sender = Address("MAILER-DAEMON", message.domain.domain)
        message_id = f"<{queue_id}@{message.domain.domain}>"
        recipients = [_reported(each, asked[each.entry_id], now) for each in news]
        content = dsn.compose(
            reporting_mta=self._host,
            sender=sender,
            to=reverse_path,
            original=message.original,
            envelope_id=_decoded(message.envelope_id),
            arrived_at=message.arrived_at,
            recipients=recipients,
            message_id=message_id,
            date=trace.date_text(now),
            queue_id=str(message.queue_id),
            smtputf8=message.smtputf8,
            returns_whole=message.is_whole and _may_return_whole(message, news),
        )
        content = await self._signer.sign(message.domain, content, headers.scan(content), now)
        return Notification(
            queue.NewMessage(
                queue_id=queue_id,
                client_id=message.client_id,
                mailbox_id=message.mailbox_id,
                lane_id=message.dsn_lane_id,
                credential_id=None,
                origin="dsn",
                reverse_path=None,
                header_from=sender,
                message_id_header=message_id,
                subject=dsn.subject(recipients),
                content=content,
                smtputf8=message.smtputf8 and not content.isascii(),
                body_8bitmime=not content.isascii(),
                parent_id=message.queue_id,
                helo="",
                peer="",
                max_retries=self._max_retries,
                entries=(queue.NewEntry(new_id(), reverse_path),),
            ),
            _gravest(news),
        )


def _may_return_whole(message: ReportedMessage, news: Iterable[News]) -> bool:
    """RFC 3461 4.3: only with a failure. What could not be converted (X.6.X) for lack of 8BITMIME would fail again."""
    failures = [each for each in news if each.action is Action.FAILED]
    is_refused_as_8bit = not message.original.isascii() and any(each.status[1:4] == ".6." for each in failures)
    return bool(failures) and not is_refused_as_8bit


def _gravest(news: Sequence[News]) -> Action:
    return next(action for action in Action if any(each.action is action for each in news))


def _reported(news: News, notice: RecipientNotice, now: datetime) -> ReportedRecipient:
    return ReportedRecipient(
        recipient=news.recipient,
        status=news.status,
        diagnostic=news.diagnostic,
        remote_mta=None,
        action=news.action.value,
        last_attempt_at=now if news.action is not Action.DELAYED else None,
        original_recipient=_original_recipient(notice.orcpt),
        because=news.because,
        expected_at=news.expected_at,
        retried_until=news.retried_until,
    )


def _event(message: ReportedMessage, news: News, notice: RecipientNotice, now: datetime) -> NewClientEvent:
    payload: dict[str, Any] = {
        "action": news.action,
        "status": news.status,
        "diagnostic": news.diagnostic,
        "because": news.because,
        "expected_at": news.expected_at.isoformat() if news.expected_at else None,
        "reverse_path": str(message.reverse_path or ""),
        "message_id": message.message_id_header,
        "subject": message.subject,
        "envelope_id": _decoded(message.envelope_id),
        "original_recipient": _original_recipient(notice.orcpt),
    }
    said = {name: value for name, value in payload.items() if value is not None}
    return NewClientEvent(
        message.client_id, _KINDS[news.action], message.queue_id, news.entry_id, str(news.recipient), said
    )


def _original_recipient(orcpt: str | None) -> str | None:
    if orcpt is None:
        return None
    kind, _, address = orcpt.partition(";")
    return f"{kind};{_decoded(address)}"


def _decoded(text: str | None) -> str | None:
    """What xtext says. Better as it came than that an outcome could not be settled for it."""
    try:
        return xtext.decode(text) if text is not None else None
    except ValueError:
        return text
