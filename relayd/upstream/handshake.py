"""Everything before the first MAIL: the server's addresses, greeting, EHLO, STARTTLS, AUTH.

Whatever goes wrong at one address before the login, the next one is tried (RFC 5321 5.1). A login that is refused is
not tried again elsewhere: a server locks out who fails too often.
"""

import asyncio
import ssl
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from socket import socket
from typing import Protocol

from aiosmtplib import SMTPResponse
from aiosmtplib.esmtp import parse_esmtp_extensions

from relayd.mail.reply import enhanced_code
from relayd.rules.outcome import Cause, Deferred, Outcome, Scope, Stage
from relayd.upstream import addresses, client_certificate
from relayd.upstream.addresses import HostAddress
from relayd.upstream.certificate import Certificate, is_mismatch
from relayd.upstream.connection import Connection, NoGreeting
from relayd.upstream.login import expect, log_in, needs_login, secrets
from relayd.upstream.settings import SmarthostSettings, is_socket_path
from relayd.upstream.verdict import Unfit, clean, judge_exception

# While there is another address to try, no longer than this for a greeting; who has not greeted by then is asked again
# when all others have failed, with all the time that a greeting has.
GREETING_SECONDS = 30.0
# How long an address that failed comes after the others.
TROUBLE_SECONDS = 300.0
# RFC 5321 3.2: who answers so to EHLO may know HELO. 550 is a word of policy too, and then it has an enhanced code.
_NO_EHLO = (500, 501, 502, 504)

# Addresses that failed, each with the time of the loop's clock until which it comes after the others.
Trouble = MutableMapping[HostAddress, float]


class Watcher(Protocol):
    """Is told of each step as it is taken."""

    def found(self, host_addresses: list[HostAddress]) -> None:
        """These will be tried."""

    def connected(self, address: HostAddress) -> None:
        """TCP to it works."""

    def begins(self, address: HostAddress, step: str) -> None:
        """`tls`, `greeting`, `ehlo` or `auth` begins."""

    def ended(self, address: HostAddress, connection: Connection, said: str) -> None:
        """The step that began has ended well."""

    def failed(self, address: HostAddress, outcome: Outcome, error: Exception) -> None:
        """The step that began has failed; without one, the connection."""


class _Nobody:
    def found(self, host_addresses: list[HostAddress]) -> None: ...
    def connected(self, address: HostAddress) -> None: ...
    def begins(self, address: HostAddress, step: str) -> None: ...
    def ended(self, address: HostAddress, connection: Connection, said: str) -> None: ...
    def failed(self, address: HostAddress, outcome: Outcome, error: Exception) -> None: ...


NOBODY: Watcher = _Nobody()


async def open_connection(
    settings: SmarthostSettings,
    tls: ssl.SSLContext | None,
    *,
    trouble: Trouble | None = None,
    watcher: Watcher = NOBODY,
) -> Connection | Outcome:
    """A connection ready for MAIL, or why there is none. `tls` is needed unless the settings say "none".

    `trouble` remembers addresses that fail, for the next time.
    """
    opening = _Opening(settings, tls, {} if trouble is None else trouble, watcher)
    try:
        async with asyncio.timeout(settings.timeouts.opening_seconds):
            return await opening.run()
    except TimeoutError:
        return opening.given_up()


async def try_address(settings: SmarthostSettings, tls: ssl.SSLContext | None, address: HostAddress) -> Outcome | None:
    """As far as a delivery would go before its login at this one address; None if all is well there."""
    opening = _Opening(settings, tls, {}, NOBODY)
    opened = await opening.first_of([address], patience=min(GREETING_SECONDS, settings.timeouts.greeting_seconds))
    if isinstance(opened, Connection):
        await opened.quit()
        return None
    return opening.outcome()


def make_tls_context(settings: SmarthostSettings) -> ssl.SSLContext:
    """Reads certificate files: call it in a thread. Raises Unfit if they cannot be read or used."""
    try:
        # TLS 1.2 or newer, and the ciphers that the system's OpenSSL thinks fit.
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.ca_file)
    except OSError as error:
        raise Unfit(f"ca_file {settings.ca_file} cannot be used: {error.strerror or error}") from error
    if not settings.verify_certificate or settings.tls == "opportunistic":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.client_certificate is not None and settings.client_key is not None:
        client_certificate.load(context, settings.client_certificate, settings.client_key)
    return context


async def greet(connection: Connection, settings: SmarthostSettings) -> None:
    """EHLO, or HELO where the server knows no EHLO. The connection knows the extensions afterwards."""
    name = settings.ehlo_name.encode()
    response = await connection.ask(Stage.EHLO, b"EHLO " + name)
    if _knows_no_ehlo(response) and (await connection.ask(Stage.EHLO, b"HELO " + name)).code == 250:
        connection.extensions = {}
        connection.ehlo_refusal = f"{response.code} {response.message}"
        return
    expect(250, response)
    connection.extensions, mechanisms = parse_esmtp_extensions(response.message)
    if mechanisms:
        # Several lines, and those of old with AUTH=, say one thing together.
        connection.extensions["auth"] = " ".join(dict.fromkeys(mechanisms)).upper()


async def presented_certificate(settings: SmarthostSettings, address: HostAddress) -> Certificate | None:
    """What the server shows to who does not verify, None if that cannot be found out. A connection of its own."""
    asking = replace(settings, verify_certificate=False, client_certificate=None, client_key=None)
    connection = Connection(asking)
    try:
        tls = await asyncio.to_thread(make_tls_context, asking)
        connected = await _connect(asking, address)
        if asking.tls == "implicit":
            await connection.connect(tls, connected)
        else:
            steps = _Steps(connection, address, NOBODY)
            await _reach(connection, asking, tls, connected, steps, asking.timeouts.connect)
        return connection.peer_certificate
    except Exception:
        return None  # It explains a failure; it is none.
    finally:
        connection.abort()


@dataclass(frozen=True, slots=True)
class _Steps:
    """Steps of one connection, for a watcher."""

    connection: Connection
    address: HostAddress
    watcher: Watcher

    def begin(self, step: str) -> None:
        self.watcher.begins(self.address, step)

    def end(self, said: str = "") -> None:
        self.watcher.ended(self.address, self.connection, said)


class _Opening:
    """One way to a server that has several addresses, and what each of them has said."""

    def __init__(
        self, settings: SmarthostSettings, tls: ssl.SSLContext | None, trouble: Trouble, watcher: Watcher
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._trouble = trouble
        self._watcher = watcher
        self._failures: dict[HostAddress, Outcome] = {}
        self._trying: HostAddress | None = None

    async def run(self) -> Connection | Outcome:
        settings = self._settings
        try:
            if is_socket_path(settings.host) and settings.tls != "none":
                raise Unfit("TLS is not spoken over a Unix socket: set tls to none")
            found = await addresses.find(
                settings.host,
                settings.port,
                source_address=settings.source_address,
                seconds=settings.timeouts.connect,
            )
        except (OSError, Unfit) as error:
            return judge_exception(Stage.CONNECT, error, settings.rules)
        self._watcher.found(found)
        now = asyncio.get_running_loop().time()
        opened = await self.first_of(sorted(found, key=lambda each: self._trouble.get(each, now) > now))
        return await self._logged_in(opened) if opened is not None else self.outcome()

    async def first_of(self, waiting: list[HostAddress], patience: float | None = None) -> Connection | None:
        """A connection that has everything but a login, by the first address that gives one."""
        greeting = patience or self._settings.timeouts.greeting_seconds
        slow: list[HostAddress] = []
        while waiting:
            reached = await addresses.connect_first(
                waiting,
                source_address=self._settings.source_address,
                seconds=self._settings.timeouts.connect,
                failed=self._unreached,
            )
            if reached is not None:
                self._trying, connected = reached
                self._watcher.connected(self._trying)
                is_last = patience is not None or all(
                    each in self._failures for each in waiting if each != self._trying
                )
                opened = await self._open(
                    self._trying, connected, greeting if is_last else min(greeting, GREETING_SECONDS)
                )
                if isinstance(opened, Connection):
                    self._trouble.pop(self._trying, None)
                    return opened
                if isinstance(opened, NoGreeting) and not is_last and greeting > GREETING_SECONDS:
                    slow.append(self._trying)
            waiting = [each for each in waiting if each not in self._failures]
            if not waiting and slow:
                waiting, slow, patience = slow, [], greeting
                for each in waiting:
                    del self._failures[each]
        return None

    def outcome(self) -> Outcome:
        """What the address says that let us come furthest, and what all of them have said."""
        order = list(Stage)
        furthest = max(
            self._failures.values(), key=lambda each: (order.index(each.cause.stage), each.cause.code is not None)
        )
        if len(self._failures) == 1:
            return furthest
        said: dict[str, list[str]] = {}
        for address, outcome in self._failures.items():
            said.setdefault(said_of(outcome), []).append(str(address))
        text = "; ".join(f"{', '.join(where)}: {what}" for what, where in said.items())
        return replace(furthest, cause=replace(furthest.cause, text=clean(text)))

    def given_up(self) -> Outcome:
        """All the time that there is has gone."""
        text = f"timed out: no connection that is ready for mail within {self._settings.timeouts.opening_seconds:g} s"
        if self._trying is None:
            return Deferred(Scope.UPSTREAM, Cause(Stage.CONNECT, text))
        self._failures.setdefault(self._trying, Deferred(Scope.UPSTREAM, Cause(Stage.CONNECT, text)))
        self._remember(self._trying)
        return self.outcome()

    async def _open(self, address: HostAddress, connected: socket, patience: float) -> Connection | Exception:
        opened = await self._handshake(self._settings, self._tls, address, connected, patience)
        if self._settings.tls != "opportunistic" or isinstance(opened, Connection):
            return opened
        if self._failures[address].cause.stage is not Stage.STARTTLS:
            return opened
        # RFC 7435 3: what cannot be had is done without. A login is not: it stays away from a line that can be read.
        try:
            connected = await _connect(self._settings, address)
        except OSError as error:
            self._unreached(address, error)
            return error
        del self._failures[address]
        return await self._handshake(replace(self._settings, tls="none"), None, address, connected, patience)

    async def _handshake(
        self,
        settings: SmarthostSettings,
        tls: ssl.SSLContext | None,
        address: HostAddress,
        connected: socket,
        patience: float,
    ) -> Connection | Exception:
        connection = Connection(settings, secrets(settings))
        try:
            await _reach(connection, settings, tls, connected, _Steps(connection, address, self._watcher), patience)
        except Exception as error:
            connection.abort()
            judged = error
            if is_mismatch(error) and (certificate := await presented_certificate(settings, address)) is not None:
                text = f"TLS: certificate not accepted: it is for {certificate.named}, not for {settings.host}"
                judged = Unfit(text)
            self._note(address, error, connection.judge(judged))
            return error
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _logged_in(self, connection: Connection) -> Connection | Outcome:
        assert self._trying is not None
        steps = _Steps(connection, self._trying, self._watcher)
        try:
            steps.begin("auth")
            steps.end(await log_in(connection, connection.settings) if needs_login(connection.settings) else "")
        except Exception as error:
            connection.abort()
            outcome = connection.judge(error)
            self._watcher.failed(self._trying, outcome, error)
            return outcome
        except BaseException:
            connection.abort()
            raise
        return connection

    def _unreached(self, address: HostAddress, error: Exception) -> None:
        self._note(address, error, judge_exception(Stage.CONNECT, error, self._settings.rules))

    def _note(self, address: HostAddress, error: Exception, outcome: Outcome) -> None:
        self._failures[address] = outcome
        self._remember(address)
        self._watcher.failed(address, outcome, error)

    def _remember(self, address: HostAddress) -> None:
        now = asyncio.get_running_loop().time()
        for each in [each for each, until in self._trouble.items() if until <= now]:
            del self._trouble[each]
        self._trouble[address] = now + TROUBLE_SECONDS


def said_of(outcome: Outcome) -> str:
    """A reply with its code, or what went wrong."""
    cause = outcome.cause
    return cause.text if cause.code is None else f"{cause.code} {cause.text}"


async def _connect(settings: SmarthostSettings, address: HostAddress) -> socket:
    return await addresses.connect(address, source_address=settings.source_address, seconds=settings.timeouts.connect)


async def _reach(
    connection: Connection,
    settings: SmarthostSettings,
    tls: ssl.SSLContext | None,
    connected: socket,
    steps: _Steps,
    patience: float,
) -> None:
    if settings.tls == "implicit":
        steps.begin("tls")
        await connection.connect(tls, connected)
        steps.end()
    steps.begin("greeting")
    if settings.tls != "implicit":
        await connection.connect(None, connected)
    greeting = expect(220, await connection.greeting(patience))
    steps.end(f"{greeting.code} {greeting.message}")
    steps.begin("ehlo")
    await greet(connection, settings)
    steps.end()
    if settings.tls in ("starttls", "opportunistic"):
        steps.begin("tls")
        if not _offers_starttls(connection, settings):
            steps.end("not offered: mail goes there in the clear")
            return
        assert tls is not None
        await connection.start_tls(tls)
        steps.end()
        steps.begin("ehlo")
        # RFC 3207 4.2: what was learned before TLS is forgotten.
        await greet(connection, settings)
        steps.end()


def _offers_starttls(connection: Connection, settings: SmarthostSettings) -> bool:
    """Raises Unfit where it has to."""
    if "starttls" in connection.extensions:
        return True
    if settings.tls == "opportunistic":
        return False
    connection.stage = Stage.STARTTLS
    why = f": it knows HELO alone (EHLO: {connection.ehlo_refusal})" if connection.ehlo_refusal else ""
    raise Unfit(f"the upstream does not offer STARTTLS, which its settings require{why}")


def _knows_no_ehlo(response: SMTPResponse) -> bool:
    return response.code in _NO_EHLO or (response.code == 550 and enhanced_code(response.message) is None)
