"""The verbs of an ESMTP session: what they mean, their order, and who may speak.

Every `smtp_XXX` method is a command. An argument comes without its surrounding blanks; an absent one is empty.
"""

import asyncio
import re

from relayd import failpoints
from relayd.errors import StoreUnavailable
from relayd.mail.address import Address, is_host
from relayd.mail.headers import without_mbox_line
from relayd.mail.reply import Reply
from relayd.rules.outcome import Stage
from relayd.rules.session_events import Authenticated, AuthenticationFailed, Ending, Reason
from relayd.submission import replies, sasl
from relayd.submission.connection import printable
from relayd.submission.conversation import IDLE
from relayd.submission.data import IncomingMessage
from relayd.submission.door import Identity, Submission
from relayd.submission.path import Fault, Mail, parse_mail, parse_rcpt
from relayd.submission.plain_verbs import PlainVerbs
from relayd.submission.report_session import IncomingReport, place
from relayd.submission.room import Share
from relayd.submission.sasl import Credentials
from relayd.submission.service import Service
from relayd.submission.stream import BadLine, SessionOver, TooLate
from relayd.submission.transaction import Transaction, transmission_type

DATA_TOO_SLOW = TooLate(Ending.DATA_TOO_SLOW, replies.DATA_TOO_SLOW)

# The EHLO name goes into the Received header: nothing that ends a comment or a line there.
_NOT_IN_A_HELO = re.compile(r"[^!#-'*-;=?-\[\]-~]")
MAX_HELO_CHARACTERS = 255
# So many refused recipients beyond the cap do not count as refusals; Postfix's smtpd_recipient_overshoot_limit.
EXCESS_RECIPIENTS = 1000


class Session(PlainVerbs):
    """A connection that speaks ESMTP."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(service, loop)
        self._helo = ""
        self._is_extended = False
        self._is_authenticated = False
        self._auth_failures = 0

    # Greetings.

    async def smtp_EHLO(self, argument: str) -> None:
        if await self._greet(argument):
            self._is_extended = True
            await self.stream.say("\r\n".join(self._offers()))

    async def smtp_HELO(self, argument: str) -> None:
        if await self._greet(argument):
            self._is_extended = False
            await self.stream.say(f"250 {self.service.hostname}")

    async def _greet(self, helo: str) -> bool:
        if self.limits.reject_invalid_helo and not is_host(helo):
            await self.refuse(Stage.EHLO, replies.EHLO_SYNTAX, Reason.BAD_SYNTAX, helo)
            return False
        self._helo = _NOT_IN_A_HELO.sub("?", helo)[:MAX_HELO_CHARACTERS] or "unknown"
        self.transaction = None
        return True

    def _offers(self) -> list[str]:
        size = f"SIZE {self.limits.size_octets}"
        offers = [self.service.hostname, "PIPELINING", size, "8BITMIME", "SMTPUTF8", "DSN"]
        if self._may_start_tls():
            offers.append("STARTTLS")
        if self._may_authenticate():
            offers.append("AUTH " + " ".join(sasl.MECHANISMS))
        return [f"250-{line}" for line in offers] + ["250 ENHANCEDSTATUSCODES"]

    def _may_start_tls(self) -> bool:
        return self.tls is None and self.service.tls_context is not None

    def _may_authenticate(self) -> bool:
        return self.tls is not None or self.service.allow_plaintext_auth

    async def smtp_STARTTLS(self, argument: str) -> None:
        if argument:
            await self.refuse(Stage.STARTTLS, replies.NO_ARGUMENT, Reason.BAD_SYNTAX)
        elif self.tls is not None:
            await self.refuse(Stage.STARTTLS, replies.TLS_IS_ON, Reason.BAD_SEQUENCE)
        elif self.service.tls_context is None:
            await self.refuse(Stage.STARTTLS, replies.TLS_NOT_OFFERED, Reason.BAD_SEQUENCE)
        else:
            await self.say(replies.TLS_READY)
            await self.stream.flush()
            await self.secure()
            self._helo, self._is_extended = "", False
            self._is_authenticated = False

    # Authentication.

    async def smtp_AUTH(self, argument: str | None) -> None:
        word, _, initial = (argument or "").partition(" ")
        mechanism = word.upper()
        refusal = self._auth_refusal(mechanism)
        if refusal is not None:
            reason = Reason.TLS_REQUIRED if refusal is replies.AUTH_NEEDS_TLS else Reason.BAD_SEQUENCE
            await self.refuse(Stage.AUTH, refusal, reason)
            return
        try:
            claim = await self._read_credentials(mechanism, initial.strip())
        except BadLine as bad:
            if bad.reason is not Reason.LINE_TOO_LONG:
                raise
            claim = sasl.TOO_LONG
        if isinstance(claim, Reply):
            await self._fail_auth(claim, Reason.AUTH_FAILED)
            return
        guard = self.service.login_guard
        if guard.is_blocked(self.peer, claim.login):
            self.report(Stage.AUTH, replies.LOGINS_BLOCKED, Reason.LOGINS_BLOCKED)
            raise SessionOver(Ending.LOGINS_BLOCKED, replies.LOGINS_BLOCKED)
        try:
            identity = await self.service.verifier.authenticate(claim.login, claim.secret)
            is_known = identity is not None or await self.service.verifier.knows(claim.login)
        except StoreUnavailable:
            await self.refuse(Stage.AUTH, replies.AUTH_UNAVAILABLE, Reason.UNAVAILABLE)
            return
        if identity is None:
            # A login that does not exist may be a password typed into the wrong field.
            login = printable(claim.login) if is_known else "(unknown)"
            self.service.emit(AuthenticationFailed(self.peer, login, mechanism))
            delay = guard.fail(self.peer, claim.login, first_delay_seconds=self.limits.auth_failure_delay_seconds)
            await self._fail_auth(sasl.FAILED, Reason.AUTH_FAILED, delay_seconds=delay)
            return
        guard.succeed(self.peer, claim.login)
        stopped = _why_stopped(identity)
        if stopped is not None:
            await self._fail_auth(replies.stopped(stopped), stopped, identity)
            return
        self.identity, self._is_authenticated = identity, True
        self.service.emit(Authenticated(self.peer, printable(claim.login), mechanism))
        await self.say(replies.AUTHENTICATED)

    def _auth_refusal(self, mechanism: str) -> Reply | None:
        if not self._is_extended:
            return replies.EHLO_FIRST
        if not self._may_authenticate():
            return replies.AUTH_NEEDS_TLS
        if self._is_authenticated:
            return replies.AUTH_DONE
        if self.transaction is not None:
            return replies.AUTH_IN_TRANSACTION
        if mechanism not in sasl.MECHANISMS:
            return replies.AUTH_MECHANISM
        return None

    async def _read_credentials(self, mechanism: str, initial: str) -> Credentials | Reply:
        if mechanism == "PLAIN":
            return sasl.decode_plain(initial or await self._ask(sasl.PROMPT))
        login = sasl.decode(initial or await self._ask(sasl.USERNAME_PROMPT))
        if isinstance(login, Reply):
            return login
        secret = sasl.decode(await self._ask(sasl.PASSWORD_PROMPT))
        return secret if isinstance(secret, Reply) else sasl.claim(login, secret)

    async def _ask(self, prompt: str) -> str:
        await self.stream.say(prompt)
        return (await self.read_line(self.limits.max_auth_octets)).decode("ascii", "replace")

    async def _fail_auth(
        self, reply: Reply, reason: Reason, identity: Identity | None = None, *, delay_seconds: float | None = None
    ) -> None:
        # Before the reply, so that a guess costs its time whether or not the client waits for the answer.
        await asyncio.sleep(self.limits.auth_failure_delay_seconds if delay_seconds is None else delay_seconds)
        self._auth_failures += 1
        await self.refuse(Stage.AUTH, reply, reason, identity=identity)
        if self._auth_failures >= self.limits.max_auth_tries:
            raise SessionOver(Ending.TOO_MANY_AUTH_TRIES, replies.TOO_MANY_AUTH_TRIES)

    # A mail transaction.

    async def smtp_MAIL(self, argument: str | None) -> None:
        if not self._helo:
            await self.refuse(Stage.MAIL, replies.EHLO_FIRST, Reason.BAD_SEQUENCE)
            return
        if self.transaction is not None:
            await self.refuse(Stage.MAIL, replies.SENDER_GIVEN, Reason.BAD_SEQUENCE)
            return
        self.speaks_utf8 = False
        identity = await self._identify()
        reports = self.service.reports
        takes_reports = reports is not None and await reports.is_open()
        stranger = self._stranger_refusal(identity, argument or "")
        if stranger is not None and not takes_reports:
            await self.refuse(Stage.MAIL, stranger.reply, stranger.reason, stranger.detail)
            return
        mail = parse_mail(argument or "", is_extended=self._is_extended)
        if isinstance(mail, Mail) and mail.size_octets > self.limits.size_octets:
            mail = Fault(replies.too_large(self.limits.size_octets), Reason.TOO_LARGE, f"SIZE={mail.size_octets}")
        if isinstance(mail, Fault):
            await self.refuse(Stage.MAIL, mail.reply, mail.reason, mail.detail)
            return
        self.speaks_utf8 = mail.smtputf8
        refusal = stranger
        if identity is not None and refusal is None:
            refusal = await self._sender_refusal(identity, mail.reverse_path)
        if refusal is not None and not takes_reports:
            await self.refuse(Stage.MAIL, refusal.reply, refusal.reason, refusal.detail)
            return
        domain = await self._postmaster_domain(mail, is_stranger=refusal is not None)
        self.transaction = Transaction(identity, mail, refusal, postmaster_domain=domain)
        await self.say(replies.SENDER_OK)

    async def _postmaster_domain(self, mail: Mail, *, is_stranger: bool) -> str:
        """The domain of `<Postmaster>` alone: the sender's own, for a stranger that of the reports, else this host."""
        if is_stranger:
            domain = await self.service.reports.postmaster_domain() if self.service.reports is not None else None
        else:
            domain = mail.reverse_path.ascii_domain if mail.reverse_path is not None else None
        return domain or self.service.hostname

    async def _identify(self) -> Identity | None:
        if self.identity is not None and self._is_authenticated:
            # A session may last for hours: a login that was taken away must not.
            self.identity = await self.service.verifier.confirm(self.identity)
            self._is_authenticated = self.identity is not None
            return self.identity
        self.identity = await self.service.verifier.network_identity(self.peer)
        return self.identity

    async def _sender_refusal(self, identity: Identity, reverse_path: Address | None) -> Fault | None:
        refusal = await self.service.door.check_reverse_path(identity, reverse_path)
        if refusal is None:
            return None
        return Fault(refusal, Reason.POLICY, f"<{reverse_path or ''}> {refusal.text}")

    def _stranger_refusal(self, identity: Identity | None, argument: str) -> Fault | None:
        """Why no mail is taken from this peer, whatever its sender; None if it may send."""
        if identity is not None:
            stopped = _why_stopped(identity)
            return Fault(replies.stopped(stopped), stopped, argument) if stopped else None
        if self._may_authenticate():
            return Fault(replies.AUTH_REQUIRED, Reason.AUTH_REQUIRED, argument)
        if self._may_start_tls():
            return Fault(replies.TLS_REQUIRED, Reason.TLS_REQUIRED, argument)
        return Fault(replies.RELAY_DENIED, Reason.RELAY_DENIED, argument)

    async def smtp_RCPT(self, argument: str | None) -> None:
        transaction = self.transaction
        if transaction is None:
            await self.refuse(Stage.RCPT, replies.MAIL_FIRST, Reason.BAD_SEQUENCE)
            return
        if transaction.taken >= self.limits.max_recipients:
            await self._refuse_excess(transaction)
            return
        parsed = parse_rcpt(
            argument or "",
            is_extended=self._is_extended,
            smtputf8=transaction.mail.smtputf8,
            postmaster_domain=transaction.postmaster_domain,
        )
        fault = parsed if isinstance(parsed, Fault) else await place(self.service, transaction, parsed)
        if fault is None:
            transaction.taken += 1
            await self.say(replies.RECIPIENT_OK)
        else:
            await self.refuse(Stage.RCPT, fault.reply, fault.reason, fault.detail)

    async def _refuse_excess(self, transaction: Transaction) -> None:
        """Refuse a recipient beyond the cap. An app that pipelines may name many before it reads the first refusal."""
        transaction.excess += 1
        if transaction.identity is None or transaction.excess > EXCESS_RECIPIENTS:
            await self.refuse(Stage.RCPT, replies.TOO_MANY_RECIPIENTS, Reason.TOO_MANY_RECIPIENTS)
        else:
            self.report(Stage.RCPT, replies.TOO_MANY_RECIPIENTS, Reason.TOO_MANY_RECIPIENTS)
            await self.say(replies.TOO_MANY_RECIPIENTS)

    async def smtp_DATA(self, argument: str) -> None:
        transaction = self.transaction
        if argument:
            await self.refuse(Stage.DATA, replies.NO_ARGUMENT, Reason.BAD_SYNTAX)
        elif transaction is None:
            await self.refuse(Stage.DATA, replies.MAIL_FIRST, Reason.BAD_SEQUENCE)
        elif not (transaction.recipients or transaction.report_addresses):
            await self.refuse(Stage.DATA, replies.NO_RECIPIENTS, Reason.BAD_SEQUENCE)
        else:
            await self.stream.say("354 End data with <CR><LF>.<CR><LF>")
            with Share(self.service.room) as share:
                content = await self._read_message(share, transaction)
                reply, reason = await self._settle(transaction, content)
            self.transaction = None
            self.commands = 0
            if reason is not None:
                await self.refuse(Stage.DOT, reply, reason)
                return
            await self.say(reply)
            if reply.code == 250:
                self.forgive()
            else:
                self.count_refusal(Reason.POLICY)

    async def _read_message(self, share: Share, transaction: Transaction) -> bytes | Reason:
        limits, reports = self.limits, self.service.reports
        is_report = reports is not None and bool(transaction.report_addresses)
        incoming = IncomingMessage(
            size_octets=limits.size_octets,
            max_line_octets=limits.max_line_octets,
            # What it says stands at its beginning, and to send one back would help nobody.
            beginning_octets=reports.max_octets if reports is not None and is_report else None,
        )
        data_ends_at = self.loop.time() + limits.data_seconds
        surplus = None
        while surplus is None:
            # Each chunk starts the idle time anew: a slow steady upload is not cut before its own time is up.
            idle_ends_at = self.loop.time() + limits.idle_seconds
            deadline, too_late = (idle_ends_at, IDLE) if idle_ends_at < data_ends_at else (data_ends_at, DATA_TOO_SLOW)
            surplus = incoming.feed(await self.stream.chunk(deadline, too_late))
            failpoints.reach("data-read")
            if not share.hold(incoming.held_octets):
                incoming.give_up()
            if surplus is None and incoming.octets > limits.size_octets * limits.discard_factor:
                reply = replies.too_large(limits.size_octets)
                self.report(Stage.DOT, reply, Reason.TOO_LARGE)
                raise SessionOver(Ending.TOO_LARGE, reply)
        self.stream.unread(surplus)
        return incoming.finish()

    async def _settle(self, transaction: Transaction, content: bytes | Reason) -> tuple[Reply, Reason | None]:
        """The final reply, and why it refuses if it does; the door reports its own refusals."""
        if isinstance(content, Reason):
            return replies.bad_content(content, self.limits.size_octets), content
        if transaction.report_addresses:
            report = IncomingReport(
                tuple(transaction.report_addresses), transaction.mail.reverse_path, content, self.peer
            )
            reply = await self.service.accept_report(report)
            return reply, None if reply.code == 250 else Reason.UNAVAILABLE
        assert transaction.identity is not None
        protocol = transmission_type(
            is_extended=self._is_extended,
            smtputf8=transaction.mail.smtputf8,
            is_encrypted=self.tls is not None,
            is_authenticated=self._is_authenticated,
        )
        content = without_mbox_line(content)
        envelope = transaction.envelope(content)
        submission = Submission(transaction.identity, envelope, content, self._helo, self.peer, protocol, self.tls)
        reply = await self.service.accept(submission)
        if reply is replies.TRY_LATER:
            return reply, Reason.UNAVAILABLE
        return reply, None


def _why_stopped(identity: Identity) -> Reason | None:
    if identity.client.is_suspended:
        return Reason.CLIENT_SUSPENDED
    return None if identity.is_active else Reason.CREDENTIAL_DISABLED
