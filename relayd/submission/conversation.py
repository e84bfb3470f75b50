"""What is said on a connection: read line by line, each line obeyed or refused. `session.Session` adds the verbs."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from relayd.errors import StoreUnavailable
from relayd.mail.reply import Reply
from relayd.rules.outcome import Stage
from relayd.rules.session_events import Ending, Reason, RefusalsSummed, Refused
from relayd.submission import replies
from relayd.submission.connection import Connection, printable
from relayd.submission.door import Identity
from relayd.submission.service import Service
from relayd.submission.stream import BadLine, SessionOver, TooLate

logger = logging.getLogger(__name__)

IDLE = TooLate(Ending.IDLE, replies.IDLE)
SESSION_TOO_LONG = TooLate(Ending.SESSION_TOO_LONG, replies.SESSION_TOO_LONG)

# A browser led here by a web page: not one of its lines may be taken for a command.
_NOT_SMTP = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_COUNTED_AS_ERRORS = frozenset({Reason.BAD_SYNTAX, Reason.BAD_PARAMETER, Reason.UNKNOWN_COMMAND, Reason.LINE_TOO_LONG})
_GREETINGS = frozenset({b"EHLO ", b"HELO "})
_STAGES = {
    "STARTTLS": Stage.STARTTLS,
    "AUTH": Stage.AUTH,
    "MAIL": Stage.MAIL,
    "RCPT": Stage.RCPT,
    "DATA": Stage.DATA,
}


class Conversation(Connection):
    """The read loop, and how refusals are said and reported."""

    verbs: ClassVar[dict[str, Callable[[Any, str], Awaitable[None]]]] = {}

    def __init_subclass__(cls) -> None:
        # aiosmtpd makes such a table for each connection, by inspecting every member: a fifth of a session's time.
        cls.verbs = {name.removeprefix("smtp_"): getattr(cls, name) for name in dir(cls) if name.startswith("smtp_")}

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(service, loop)
        self.commands = 0
        self._errors = 0
        self._refusals = 0
        self._reasons: Counter[Reason] = Counter()

    async def converse(self) -> SessionOver:
        """Until the session is over; how."""
        try:
            await self.stream.say(f"220 {self.service.hostname} ESMTP relayd")
            while True:
                if self.service.is_draining and self.transaction is None:
                    return SessionOver(Ending.DRAINED, replies.SHUTTING_DOWN)
                try:
                    line = await self.read_line()
                    await self._obey(line)
                except BadLine as bad:
                    await self._refuse_line(bad.reason)
        except SessionOver as over:
            return over
        except Exception:
            logger.exception("a session broke")
            return SessionOver(Ending.BROKEN, replies.BROKEN)
        finally:
            self._sum_up_refusals()

    async def read_line(self, max_octets: int | None = None) -> bytes:
        """The next line. Raises BadLine, SessionOver.

        An AUTH command may be longer than others; `max_octets` is for what follows it.
        """
        now = self.loop.time()
        idle_ends_at = now + self.limits.idle_seconds
        session_ends_at = self._began_at + self.limits.session_seconds
        if idle_ends_at < session_ends_at:
            deadline, too_late = idle_ends_at, IDLE
        else:
            deadline, too_late = session_ends_at, SESSION_TOO_LONG
        if deadline <= now and self.transaction is None:
            raise too_late.over()  # a client that never stops talking never waits
        if max_octets is not None:
            return await self.stream.line(max_octets, deadline, too_late)
        line = await self.stream.line(self.limits.max_auth_octets, deadline, too_late)
        if len(line) > self.limits.max_command_octets and line[:5].upper() != b"AUTH ":
            raise BadLine(Reason.LINE_TOO_LONG)
        return line

    async def _obey(self, line: bytes) -> None:
        try:
            # Computers are named in any charset; their names are made fit for Received.
            text = line.decode(errors="replace" if line[:5].upper() in _GREETINGS else "strict")
        except UnicodeDecodeError:
            await self.refuse(Stage.EHLO, replies.NOT_UTF8, Reason.BAD_SYNTAX)
            return
        word, _, argument = text.partition(" ")
        verb = word.upper()
        method = self.verbs.get(verb)
        if method is None:
            if verb in _NOT_SMTP:
                raise SessionOver(Ending.NOT_SMTP, replies.NOT_SMTP)
            # Not what the client sent: after a refused AUTH that may well be its secret.
            await self.refuse(Stage.EHLO, replies.NOT_RECOGNIZED, Reason.UNKNOWN_COMMAND)
            return
        if verb not in {"RCPT", "DATA", "QUIT"}:
            self.commands += 1
            if self.commands > self.limits.max_commands:
                raise SessionOver(Ending.TOO_MANY_COMMANDS, replies.TOO_MANY_COMMANDS)
        try:
            await method(self, argument.strip(" \t"))
        except (SessionOver, BadLine):
            raise
        except StoreUnavailable:
            await self.refuse(_STAGES.get(verb, Stage.EHLO), replies.TRY_LATER, Reason.UNAVAILABLE)
        except Exception:
            logger.exception("%s failed; the client was told to try again later", verb)
            self.transaction = None
            await self.refuse(_STAGES.get(verb, Stage.EHLO), replies.TRY_LATER, Reason.UNAVAILABLE)

    async def _refuse_line(self, reason: Reason) -> None:
        reply = replies.bad_line(reason)
        if reason is Reason.LINE_TOO_LONG:
            await self.refuse(Stage.EHLO, reply, reason)
            return
        # What follows may be another program's idea of where a line ends: do not read on.
        self.report(Stage.EHLO, reply, reason)
        raise SessionOver(Ending.BARE_NEWLINE, reply)

    async def refuse(
        self, stage: Stage, reply: Reply, reason: Reason, detail: str = "", identity: Identity | None = None
    ) -> None:
        """Report a refusal and reply with it; the session ends when there were too many mistakes."""
        self.report(stage, reply, reason, detail, identity)
        if self.identity is None and (delay := self.service.refusal_pace.delay_seconds(self.peer)):
            await asyncio.sleep(delay)
        await self.say(reply)
        self.count_refusal(reason)

    def count_refusal(self, reason: Reason) -> None:
        """Count a refusal that was replied. Raises SessionOver when there were too many."""
        self._refusals += 1
        self._errors += reason in _COUNTED_AS_ERRORS
        if self._errors >= self.limits.max_bad_commands:
            raise SessionOver(Ending.TOO_MANY_ERRORS, replies.TOO_MANY_ERRORS)
        # A list of recipients whom its sender must not write to is one mistake of an app, not a hundred of a stranger.
        allowed = self.limits.max_refusals + (self.limits.max_recipients if self.identity else 0)
        if self._refusals >= allowed:
            raise SessionOver(Ending.TOO_MANY_REFUSALS, replies.TOO_MANY_ERRORS)

    def forgive(self) -> None:
        """Begin to count mistakes anew: the client has handed over a message."""
        self._errors = self._refusals = 0

    def report(
        self, stage: Stage, reply: Reply, reason: Reason, detail: str = "", identity: Identity | None = None
    ) -> None:
        """Tell metrics and the log of a refusal, of the session's identity unless another is given.

        `detail` must hold no secret.
        """
        refused = identity or self.identity
        client, login = (refused.client.name, refused.login) if refused else (None, None)
        detail = printable(detail or reply.text)
        self._reasons[reason] += 1
        number = self._reasons.total()
        self.service.emit(
            Refused(
                self.peer,
                client,
                login,
                stage,
                reply.code,
                reply.enhanced,
                reason,
                detail,
                number if number > self.limits.logged_refusals else None,
            )
        )

    def _sum_up_refusals(self) -> None:
        total = self._reasons.total()
        unlogged = total - self.limits.logged_refusals
        if unlogged > 0:
            client, login = (self.identity.client.name, self.identity.login) if self.identity else (None, None)
            (most_frequent, _), *_ = self._reasons.most_common(1)
            self.service.emit(RefusalsSummed(self.peer, client, login, total, unlogged, most_frequent))
