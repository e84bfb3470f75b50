"""Try an SMTP upstream as a delivery would use it, and tell each step."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from uuid import uuid4

from relayd.errors import RelaydError
from relayd.mail.address import Address
from relayd.mail.envelope import Transmission
from relayd.mail.trace import date_text
from relayd.rules.outcome import Cause, Outcome, Sent, Stage, Uncertain
from relayd.upstream import reach
from relayd.upstream.certificate import is_mismatch
from relayd.upstream.connection import Connection, is_socket_path
from relayd.upstream.cures import Place, cure
from relayd.upstream.handshake import greet, make_tls_context, presented_certificate
from relayd.upstream.login import expect, log_in, needs_login, secrets
from relayd.upstream.settings import SmarthostSettings, Timeouts
from relayd.upstream.steps import Progress, Report, StepFailed, Trial
from relayd.upstream.transaction import mail_command, rcpt_command, refuse_what_cannot_pass
from relayd.upstream.verdict import Unfit, judge_reply

_BRIEF = Timeouts(connect=10.0, command=15.0, data_block=15.0, dot=30.0, quit=2.0)


# Signs a message of a sender as real mail for the upstream is signed, and says by what, or why not. Raises RelaydError.
Sign = Callable[[bytes, Address], Awaitable[tuple[bytes, str]]]


class SmtpProbe:
    """`now` dates the message that is sent."""

    def __init__(self, settings: SmarthostSettings, *, now: Callable[[], datetime], sign: Sign) -> None:
        self._settings = replace(settings, timeouts=_BRIEF)
        self._now = now
        self._sign = sign

    async def run(self, trial: Trial, progress: Progress) -> None:
        """From the host's name to QUIT. Raises StepFailed at the first step that fails."""
        settings = self._settings
        place = Place(
            upstream=trial.upstream,
            host=settings.host,
            port=settings.port,
            ehlo_name=settings.ehlo_name,
            sender=str(trial.reverse_path),
            recipient=str(trial.recipient),
            source_address=settings.source_address,
        )
        if is_socket_path(settings.host):
            found = [(socket.AF_UNIX, settings.host)]
        else:
            found = await reach.resolve(progress, place)
        connected = await reach.connect(progress, place, found)
        walk = _Walk(settings, trial, place, progress, self._now(), self._sign)
        try:
            await walk.run(connected)
        finally:
            walk.connection.abort()
            connected.close()


def trial_transmission(trial: Trial, ehlo_name: str, now: datetime) -> Transmission:
    """The small message that a test sends. `ehlo_name` is to the right of its Message-ID."""
    queue_id = uuid4()
    lines = (
        f"From: <{trial.reverse_path.wire}>",
        f"To: <{trial.recipient.wire}>",
        f"Subject: relayd test of upstream {trial.upstream}",
        f"Date: {date_text(now)}",
        f"Message-ID: <{queue_id}@{ehlo_name.strip('[]')}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is a test of relayd's upstream {trial.upstream}, asked for with relayd upstream test --send.",
        "It was not queued. It arrived, so the upstream works.",
        "",
    )
    return Transmission(
        queue_id=queue_id,
        reverse_path=trial.reverse_path,
        recipients=(trial.recipient,),
        content="\r\n".join(lines).encode(),
        smtputf8=trial.reverse_path.needs_smtputf8 or trial.recipient.needs_smtputf8,
        body_8bitmime=False,
    )


async def signed(progress: Progress, sign: Sign, trial: Trial, transmission: Transmission) -> Transmission:
    """The step `sign`: the message as it is sent."""
    async with progress.step("sign") as report:
        try:
            content, report.result = await sign(transmission.content, trial.reverse_path)
        except RelaydError as error:
            cure = f"mail waits for the same reason; relayd upstream set {trial.upstream} --dkim none sends it unsigned"
            raise StepFailed(f"cannot be signed: {error}", cure) from None
    return replace(transmission, content=content)


class _Walk:
    """One connection and what is said on it."""

    def __init__(
        self,
        settings: SmarthostSettings,
        trial: Trial,
        place: Place,
        progress: Progress,
        now: datetime,
        sign: Sign,
    ) -> None:
        self.connection = Connection(settings, secrets(settings))
        self._settings = settings
        self._trial = trial
        self._place = place
        self._progress = progress
        self._sign = sign
        self._transmission = trial_transmission(trial, settings.ehlo_name, now)

    async def run(self, connected: socket.socket) -> None:
        settings, connection = self._settings, self.connection
        await self._begin(connected)
        async with self._step("ehlo") as report:
            await greet(connection, settings)
            self._tell_offers(report)
        if settings.tls in ("starttls", "opportunistic"):
            await self._secure()
        async with self._step("auth") as report:
            if needs_login(settings):
                report.result = f"{await log_in(connection, settings)} as {settings.username or 'the token says'}"
            else:
                report.result = "not tried: the upstream has no login"
        try:
            await self._transact()
        except StepFailed:
            if connection.is_usable:
                await connection.quit()
            raise
        async with self._progress.step("quit") as report:
            await connection.quit()
            report.result = "closed"

    async def _begin(self, connected: socket.socket) -> None:
        """TLS, where the connection begins with it, and the greeting."""
        settings = self._settings
        if settings.tls == "implicit":
            async with self._step("tls") as report:
                await self.connection.connect(await asyncio.to_thread(make_tls_context, settings), connected)
                self._tell_tls(report)
        async with self._step("greeting") as report:
            if settings.tls != "implicit":
                await self.connection.connect(None, connected)
            report.result = _reply(expect(220, await self.connection.greeting()))

    async def _secure(self) -> None:
        settings, connection = self._settings, self.connection
        async with self._step("tls") as report:
            if "starttls" not in connection.extensions:
                if settings.tls == "starttls":
                    raise Unfit("the upstream does not offer STARTTLS, which its settings require")
                report.result = "not offered: mail goes there in the clear"
                return
            await connection.start_tls(await asyncio.to_thread(make_tls_context, settings))
            self._tell_tls(report)
        async with self._step("ehlo") as report:
            await greet(connection, settings)
            self._tell_offers(report)

    async def _transact(self) -> None:
        connection, transmission = self.connection, self._transmission
        if self._trial.is_sending:
            transmission = await signed(self._progress, self._sign, self._trial, transmission)
        async with self._step("mail") as report:
            if refused := refuse_what_cannot_pass(connection.extensions, transmission):
                raise self._failure("mail", refused[0].cause)
            command = mail_command(connection.extensions, transmission)
            await self._ask(report, Stage.MAIL, command)
        async with self._step("rcpt") as report:
            await self._ask(report, Stage.RCPT, rcpt_command(connection.extensions, transmission, 0))
        if not self._trial.is_sending:
            async with self._step("rset") as report:
                await self._ask(report, Stage.DATA, b"RSET")
                report.details.append("nothing was sent; --send sends a small message")
            return
        async with self._step("data") as report:
            expect(354, await connection.ask(Stage.DATA, b"DATA"))
            response = await connection.send_content(transmission.content)
            outcome = judge_reply(connection.stage, response.code, response.message, rules=connection.rules)
            if not isinstance(outcome, Sent):
                raise self._failure("data", outcome.cause)
            report.result = _reply(response)

    async def _ask(self, report: Report, stage: Stage, command: bytes) -> None:
        response = await self.connection.ask(stage, command)
        report.details.append(command.decode())
        if not 200 <= response.code <= 299:
            expect(250, response)
        report.result = _reply(response)

    @asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[Report]:
        async with self._progress.step(name) as report:
            try:
                yield report
            except StepFailed:
                raise
            except Exception as error:
                if name == "tls" and isinstance(error, ssl.SSLCertVerificationError):
                    raise await self._not_verified(error) from None
                raise self._failure(name, *self._judged(error)) from None

    def _judged(self, error: Exception) -> tuple[Cause, bool]:
        outcome: Outcome = self.connection.judge(error)
        return outcome.cause, isinstance(outcome, Uncertain)

    def _failure(self, name: str, cause: Cause, is_doubt: bool = False) -> StepFailed:
        text = cause.text if cause.code is None else f"{cause.code} {cause.text}"
        if is_doubt:
            text = f"no reply to the message ({text})"
        return StepFailed(text, cure(name, text, cause.code, self._place))

    async def _not_verified(self, error: ssl.SSLCertVerificationError) -> StepFailed:
        """What is wrong with the certificate, and the certificate."""
        cause, _ = self._judged(error)
        certificate = await presented_certificate(self._settings)
        text = cause.text
        if is_mismatch(error) and certificate is not None:
            text = f"TLS: certificate not accepted: it is for {certificate.named}, not for {self._settings.host}"
        details = reach.certificate_lines(certificate) if certificate is not None else ()
        return StepFailed(text, cure("tls", text, None, self._place), details)

    def _tell_tls(self, report: Report) -> None:
        settings, tls = self._settings, self.connection.tls_object
        assert tls is not None
        doubt = None
        if settings.tls == "opportunistic":
            doubt = "opportunistic TLS takes any certificate; --tls starttls would verify it"
        elif not settings.verify_certificate:
            doubt = f"the upstream is set to take any; relayd upstream set {self._place.upstream} --verify-certificate"
        reach.describe_tls(report, tls, self.connection.peer_certificate, doubt=doubt)
        if settings.client_certificate is not None:
            report.details.append("relayd's own certificate is shown where the server asks for it")

    def _tell_offers(self, report: Report) -> None:
        extensions = self.connection.extensions
        report.result = f"offers {len(extensions)} extensions" if extensions else "offers nothing"
        report.details += [f"{name.upper()} {value}".strip() for name, value in extensions.items()]


def _reply(response: tuple[int, str]) -> str:
    code, text = response
    return f"{code} {text}"
