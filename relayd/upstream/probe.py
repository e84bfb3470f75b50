"""Try an SMTP upstream as a delivery would use it, and tell each step.

The connection is opened by what opens a delivery's, with the same timeouts; its steps are written down as they come.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import uuid4

from relayd.errors import RelaydError
from relayd.mail.address import Address
from relayd.mail.envelope import Transmission
from relayd.mail.trace import date_text
from relayd.rules.outcome import Cause, Outcome, Sent, Stage, Uncertain
from relayd.upstream import reach
from relayd.upstream.addresses import HostAddress
from relayd.upstream.connection import Connection
from relayd.upstream.cures import Place, cure
from relayd.upstream.handshake import make_tls_context, open_connection, presented_certificate, said_of, try_address
from relayd.upstream.login import expect
from relayd.upstream.settings import SmarthostSettings, is_socket_path
from relayd.upstream.steps import NOT_DONE, NOT_DONE_CURE, Progress, Report, Step, StepFailed, Trial
from relayd.upstream.transaction import mail_command, rcpt_command, refuse_what_cannot_pass
from relayd.upstream.verdict import Unfit, clean, judge_reply

# A greeting that takes longer is worth a word.
SLOW_GREETING_SECONDS = 5.0


# Signs a message of a sender as real mail for the upstream is signed, and says by what, or why not. Raises RelaydError.
Sign = Callable[[bytes, Address], Awaitable[tuple[bytes, str]]]


class SmtpProbe:
    """`now` dates the message that is sent."""

    def __init__(self, settings: SmarthostSettings, *, now: Callable[[], datetime], sign: Sign) -> None:
        self._settings = settings
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
        tls = await _tls_context(settings, place, progress)
        notes = _Notes(settings, place, progress)
        connection = await notes.open(tls)
        try:
            await _Transaction(settings, trial, place, progress, connection, self._now(), self._sign).run()
        finally:
            connection.abort()
        await notes.try_others(tls)


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


@dataclass
class _Way:
    """What was seen at one address. `tcp` is what came of the connection, `said` what came of all."""

    tcp: str = "not tried: another one answered first"
    said: str = "not tried: another one answered first"
    steps: list[Step] = field(default_factory=list)
    is_connected: bool = False
    is_dead: bool = False
    error: Exception | None = None


class _Notes:
    """A Watcher: opens the connection, and writes down what is told of it."""

    def __init__(self, settings: SmarthostSettings, place: Place, progress: Progress) -> None:
        self._settings = settings
        self._place = place
        self._progress = progress
        self._ways: dict[HostAddress, _Way] = {}
        self._step = ""
        self._used: _Way | None = None  # the one that was to be logged in to
        self._began = progress.begin("dns")
        self._seconds = {"dns": 0.0, "tcp": 0.0}

    async def open(self, tls: ssl.SSLContext | None) -> Connection:
        """A connection that has all but MAIL, its steps in the progress. Raises StepFailed."""
        opened: Connection | Outcome | None = None
        certificate: tuple[str, ...] = ()
        try:
            opened = await open_connection(self._settings, tls, watcher=self)
            if not isinstance(opened, Connection):
                certificate = await self._certificate()
        finally:
            # Whatever ends it, a cancel included.
            self._progress.end()
            self._tell(opened, certificate)
        if not isinstance(opened, Connection):
            raise StepFailed(said_of(opened), "")
        return opened

    async def try_others(self, tls: ssl.SSLContext | None) -> None:
        """Whether the other addresses would do as well, told with step `tcp`. What is dead is a warning."""
        untried = [address for address, way in self._ways.items() if not way.steps and not way.is_dead]
        self._progress.begin("other addresses")
        outcomes = await asyncio.gather(*(try_address(self._settings, tls, address) for address in untried))
        self._progress.end()
        for address, outcome in zip(untried, outcomes, strict=True):
            way = self._ways[address]
            way.is_dead, way.tcp = outcome is not None, "works too" if outcome is None else said_of(outcome)
        if dead := sum(way.is_dead for way in self._ways.values()):
            steps = self._progress.steps
            at = next(index for index, step in enumerate(steps) if step.name == "tcp")
            warning = reach.some_dead(dead, len(self._ways))
            steps[at] = replace(steps[at], details=self._lines(self._furthest()), warning=warning)

    # As a Watcher.

    def found(self, host_addresses: list[HostAddress]) -> None:
        """`dns` has ended."""
        self._seconds["dns"] = self._passed()
        self._ways = {each: _Way() for each in host_addresses}
        self._progress.begin("tcp")

    def connected(self, address: HostAddress) -> None:
        """`tcp` has ended, at one address."""
        self._seconds["tcp"] = self._passed()
        way = self._ways[address]
        way.is_connected, way.is_dead, way.steps = True, False, []
        way.tcp = f"connected in {self._seconds['tcp']:.3f} s"

    def begins(self, address: HostAddress, step: str) -> None:
        """Written down when it has ended."""
        self._step = step
        self._began = self._progress.begin(step)
        if step == "auth":
            self._used = self._ways[address]

    def ended(self, address: HostAddress, connection: Connection, said: str) -> None:
        """With what is known of the connection then."""
        report, seconds = Report(said), self._passed()
        match self._step:
            case "tls" if not said:
                self._tell_tls(report, connection)
            case "ehlo":
                _tell_offers(report, connection)
            case "greeting" if seconds > SLOW_GREETING_SECONDS:
                report.warning = f"it greets after {seconds:.0f} s: every new connection takes as long"
            case "auth":
                who = self._settings.username or "the token says"
                report.result = f"{said} as {who}" if said else "not tried: the upstream has no login"
        self._write(address, seconds, report)
        self._ways[address].said = "works"
        self._step = ""

    def failed(self, address: HostAddress, outcome: Outcome, error: Exception) -> None:
        """At the step that began, or before any."""
        way, text = self._ways[address], said_of(outcome)
        way.error, way.is_dead, way.said = error, True, text
        if self._step:
            self._write(address, self._passed(), Report(text), cure(self._step, text, outcome.cause.code, self._place))
        if not way.is_connected:
            way.tcp = text
        self._step = ""
        self._progress.begin("tcp")

    def _write(self, address: HostAddress, seconds: float, report: Report, mend: str | None = None) -> None:
        details = tuple(map(clean, report.details))
        step = Step(self._step, mend is None, seconds, clean(report.result), details, mend, report.warning)
        self._ways[address].steps.append(step)

    def _passed(self) -> float:
        now = self._progress.clock()
        passed, self._began = now - self._began, now
        return passed

    def _furthest(self) -> _Way:
        """Where we came furthest."""
        return self._used or max(self._ways.values(), key=lambda way: (len(way.steps), way.is_connected))

    def _lines(self, chosen: _Way) -> tuple[str, ...]:
        return tuple(clean(f"{address.with_port}: {_line(way, chosen)}") for address, way in self._ways.items())

    async def _certificate(self) -> tuple[str, ...]:
        """Lines about the one that was not accepted."""
        for address, way in self._ways.items():
            if way is self._furthest() and isinstance(way.error, ssl.SSLCertVerificationError):
                certificate = await presented_certificate(self._settings, address)
                return reach.certificate_lines(certificate) if certificate is not None else ()
        return ()

    def _tell(self, opened: Connection | Outcome | None, certificate: tuple[str, ...]) -> None:
        """Steps `dns`, `tcp`, and those of the address where we came furthest. `opened` None: there was no time."""
        progress, ways = self._progress, self._ways
        is_opened = isinstance(opened, Connection)
        text = NOT_DONE if opened is None or isinstance(opened, Connection) else said_of(opened)
        code = None if opened is None or isinstance(opened, Connection) else opened.cause.code
        if not ways:
            name = "tcp" if is_socket_path(self._settings.host) else "dns"
            progress.add(name, self._passed(), text, cure=self._mend(name, text, code))
            return
        if not is_socket_path(self._settings.host):
            progress.add("dns", self._seconds["dns"], reach.looked_up(self._settings.host, list(ways)))
        chosen = self._furthest()
        lines = self._lines(chosen)
        if not chosen.is_connected:
            progress.add("tcp", self._passed(), text, cure=self._mend("tcp", text, code), details=lines)
            return
        where = next(address for address, way in ways.items() if way is chosen)
        progress.add("tcp", self._seconds["tcp"], f"connected to {where.with_port}", details=lines)
        for step in chosen.steps:
            progress.steps.append(step if step.is_ok else replace(step, details=(*step.details, *certificate)))
        if not is_opened and progress.steps[-1].is_ok:
            name = self._step or "tcp"
            progress.add(name, self._passed(), text, cure=self._mend(name, text, code))

    def _mend(self, step: str, text: str, code: int | None) -> str:
        return NOT_DONE_CURE if text == NOT_DONE else cure(step, text, code, self._place)

    def _tell_tls(self, report: Report, connection: Connection) -> None:
        settings, tls = self._settings, connection.tls_object
        assert tls is not None
        doubt = None
        if settings.tls == "opportunistic":
            doubt = "opportunistic TLS takes any certificate; --tls starttls would verify it"
        elif not settings.verify_certificate:
            doubt = f"the upstream is set to take any; relayd upstream set {self._place.upstream} --verify-certificate"
        reach.describe_tls(report, tls, connection.peer_certificate, doubt=doubt)
        if settings.client_certificate is not None:
            report.details.append("relayd's own certificate is shown where the server asks for it")


class _Transaction:
    """A message on a connection that is ready for it, or as much of one as is wanted."""

    def __init__(
        self,
        settings: SmarthostSettings,
        trial: Trial,
        place: Place,
        progress: Progress,
        connection: Connection,
        now: datetime,
        sign: Sign,
    ) -> None:
        self._trial = trial
        self._place = place
        self._progress = progress
        self._sign = sign
        self._connection = connection
        self._transmission = trial_transmission(trial, settings.ehlo_name, now)

    async def run(self) -> None:
        """MAIL, RCPT, RSET or DATA, and QUIT."""
        try:
            await self._transact()
        except StepFailed:
            if self._connection.is_usable:
                await self._connection.quit()
            raise
        async with self._progress.step("quit") as report:
            await self._connection.quit()
            report.result = "closed"

    async def _transact(self) -> None:
        connection, transmission = self._connection, self._transmission
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
        response = await self._connection.ask(stage, command)
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
                outcome = self._connection.judge(error)
                raise self._failure(name, outcome.cause, isinstance(outcome, Uncertain)) from None

    def _failure(self, name: str, cause: Cause, is_doubt: bool = False) -> StepFailed:
        text = cause.text if cause.code is None else f"{cause.code} {cause.text}"
        if is_doubt:
            text = f"no reply to the message ({text})"
        return StepFailed(text, cure(name, text, cause.code, self._place))


async def _tls_context(settings: SmarthostSettings, place: Place, progress: Progress) -> ssl.SSLContext | None:
    """What a delivery makes before it connects. Raises StepFailed, of a step `tls`."""
    if settings.tls == "none":
        return None
    try:
        return await asyncio.to_thread(make_tls_context, settings)
    except Unfit as error:
        progress.add("tls", 0, str(error), cure=cure("tls", str(error), None, place))
        raise StepFailed(str(error), "") from None


def _line(way: _Way, chosen: _Way) -> str:
    """What came of the connection to an address, and of what followed, where it is not shown in steps of its own."""
    return f"{way.tcp}, then: {way.said}" if way.is_connected and way.is_dead and way is not chosen else way.tcp


def _tell_offers(report: Report, connection: Connection) -> None:
    extensions = connection.extensions
    report.result = f"offers {len(extensions)} extensions" if extensions else "offers nothing"
    if connection.ehlo_refusal is not None:
        report.result = f"knows HELO alone (EHLO: {connection.ehlo_refusal}): offers nothing"
    report.details += [f"{name.upper()} {value}".strip() for name, value in extensions.items()]


def _reply(response: tuple[int, str]) -> str:
    code, text = response
    return f"{code} {text}"
