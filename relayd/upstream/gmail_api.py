"""Provider `google_workspace`, mode `gmail_api`: a draft, its name kept, then the draft sent.

What is in doubt afterwards can be looked for: a draft that is still there was not sent.
"""

import asyncio
import base64
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from relayd import failpoints
from relayd.errors import StoreUnavailable
from relayd.mail.envelope import Transmission
from relayd.rules.outcome import Cause, Deferred, Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.upstream.gmail import Gmail, GmailSettings, draft_path
from relayd.upstream.gmail_content import Others, complete
from relayd.upstream.gmail_reference import Reference
from relayd.upstream.gmail_verdict import Step, json_object, judge_failure, judge_gmail
from relayd.upstream.http import HttpFailure, HttpReply
from relayd.upstream.tokens import GrantDead, TokenUnavailable
from relayd.upstream.verdict import MAX_PROVIDER_ID_CHARACTERS, clean, judge_exception

# As base64url in JSON a message grows by a third; beyond this it is uploaded as it is.
MAX_INLINE_OCTETS = 512 * 1024
STORE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class GmailApi:
    def __init__(
        self,
        settings: GmailSettings,
        others: Others,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        mark: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        """`others` gives the other recipients of a message that are still to go."""
        self._gmail = Gmail(settings)
        self._per_mailbox = settings.per_mailbox
        self._rules = settings.rules
        self._others = others
        self._spacing = 1 / settings.sends_a_second
        self._clock = clock
        self._sleep = sleep
        self._wall_clock = wall_clock
        self._mark = mark
        self._turns: dict[str | None, float] = {}

    async def deliver(self, transmission: Transmission) -> tuple[Outcome, ...]:
        """All recipients share one outcome. Raises CancelledError alone."""
        transmission.reached.stage = Stage.DATA
        try:
            outcome = await self._deliver(transmission)
        except StoreUnavailable as error:
            outcome = Postponed(Scope.MESSAGE, Cause(Stage.LOCAL, f"not sent: {error}"), STORE_SECONDS)
        except Exception as error:
            # Before the draft is told to go everything is definite; what comes after is caught where it comes.
            _log.error("unexpected error before drafts.send", exc_info=error)
            outcome = judge_exception(Stage.DATA, error)
        return (outcome,) * len(transmission.recipients)

    async def close(self) -> None:
        """Close every connection."""
        await self._gmail.close()

    async def _deliver(self, transmission: Transmission) -> Outcome:
        mark = self._mark()
        content = await complete(transmission, mark, self._others)
        if not isinstance(content, bytes):
            return content
        subject = self._gmail.subject(str(transmission.mailbox) if transmission.mailbox else None)
        if self._per_mailbox and subject is None:
            return Deferred(Scope.MESSAGE, Cause(Stage.LOCAL, "the mailbox that sends it is not known"))
        await self._take_turn(subject)
        created = await self._create(content, subject)
        if not isinstance(created, HttpReply):
            return created
        reference = _reference(created, mark)
        if reference is None:
            return Deferred(Scope.UPSTREAM, Cause(Stage.DATA, f"{Step.CREATE}: a reply without the draft's id"))
        # A draft that is left behind is looked for from here on, as one that may have been sent.
        transmission.reached.stage = Stage.DOT
        try:
            await transmission.keep_reference(str(reference))
        except StoreUnavailable:
            await self._remove(reference, subject)
            raise
        outcome = await self._send(reference, subject)
        if not isinstance(outcome, Sent | Uncertain):
            await self._take_back(transmission, reference, subject)
        return outcome

    async def _create(self, content: bytes, subject: str | None) -> HttpReply | Outcome:
        body: dict[str, Any] = {"data": content}
        if len(content) <= MAX_INLINE_OCTETS:
            body = {"json": {"message": {"raw": base64.urlsafe_b64encode(content).decode()}}}
        try:
            reply = await self._gmail.ask("POST", "drafts", subject, **body)
        except (HttpFailure, GrantDead, TokenUnavailable, OSError) as error:
            return self._judge(Step.CREATE, error)
        return reply if reply.status == 200 else self._read(Step.CREATE, reply)

    async def _send(self, reference: Reference, subject: str | None) -> Outcome:
        failpoints.reach("upstream-dot-before")
        try:
            reply = await self._gmail.ask("POST", "drafts/send", subject, json={"id": reference.draft_id})
        except (HttpFailure, GrantDead, TokenUnavailable, OSError) as error:
            return self._judge(Step.SEND, error)
        except Exception as error:
            _log.error("unexpected error at drafts.send", exc_info=error)
            return judge_exception(Stage.DOT, error)
        if reply.status != 200:
            return self._read(Step.SEND, reply)
        message_id = str((json_object(reply.content) or {}).get("id") or "")[:MAX_PROVIDER_ID_CHARACTERS] or None
        return Sent(Cause(Stage.DOT, clean(f"sent as {message_id}"), 200), message_id)

    def _read(self, step: Step, reply: HttpReply) -> Outcome:
        return judge_gmail(step, reply, self._rules, now=self._wall_clock())

    def _judge(self, step: Step, error: Exception) -> Outcome:
        match error:
            case HttpFailure():
                return judge_failure(step, error)
            case GrantDead() | TokenUnavailable():
                return judge_exception(Stage.AUTH, error)
            case _:
                # The file of certificates: nothing was asked.
                return judge_exception(Stage.CONNECT, error)

    async def _take_back(self, transmission: Transmission, reference: Reference, subject: str | None) -> None:
        """Remove a draft that was certainly not sent. It is said so first: a draft that is gone looks like one sent."""
        with suppress(StoreUnavailable):
            await transmission.keep_reference(str(reference.refused()))
            await self._remove(reference, subject)

    async def _remove(self, reference: Reference, subject: str | None) -> None:
        with suppress(HttpFailure, GrantDead, TokenUnavailable, OSError):
            await self._gmail.ask("DELETE", draft_path(reference.draft_id), subject)

    async def _take_turn(self, subject: str | None) -> None:
        """Wait until this mailbox may send again."""
        now = self._clock()
        at = max(now, self._turns.get(subject, 0.0))
        self._turns[subject] = at + self._spacing
        if len(self._turns) > 1000:
            self._turns = {each: turn for each, turn in self._turns.items() if turn > now}
        if at > now:
            await self._sleep(at - now)


def _reference(created: HttpReply, mark: str) -> Reference | None:
    draft = json_object(created.content) or {}
    message = draft.get("message")
    thread = str(message.get("threadId") or "") if isinstance(message, dict) else ""
    return Reference.made(str(draft.get("id") or ""), thread, mark)
