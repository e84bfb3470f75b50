"""An SMTP server that takes everything and remembers it: who, to whom, which bytes. In a thread of its own."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.peers.winding_up import wind_up


@dataclass(frozen=True)
class Arrival:
    """One transaction that was answered 250. `mail` is the whole command."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    mail: str = ""


@dataclass
class Sink:
    """Use as a context manager; `arrivals` grows while it runs. `delay_seconds` holds back the reply to the dot,
    `waiting` counts those that are held back just now.

    `offers` is what EHLO names. `on_rcpt` gives the reply to a recipient, `on_content` that to a message; `is_dropping`
    takes a message and hangs up instead of replying; `is_holding` takes a message and keeps back the reply as long as
    it is true.
    """

    delay_seconds: float = 0.0
    offers: tuple[str, ...] = ("8BITMIME", "SMTPUTF8", "SIZE")
    on_rcpt: Callable[[str], str] = lambda recipient: "250 2.1.5 ok"
    on_content: Callable[[bytes], str] = lambda content: "250 2.0.0 queued as {}"
    is_dropping: Callable[[Arrival], bool] = lambda arrival: False
    is_holding: Callable[[Arrival], bool] = lambda arrival: False
    arrivals: list[Arrival] = field(default_factory=list)
    waiting: int = 0
    port: int = 0

    def __enter__(self) -> "Sink":
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    @property
    def recipients(self) -> "Counter[str]":
        return Counter(recipient for arrival in list(self.arrivals) for recipient in arrival.recipients)

    def record(self, arrival: Arrival) -> None:
        """Remember it; called before the reply."""
        self.arrivals.append(arrival)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=1 << 26)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        await wind_up(server)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._session(reader, writer)
            await writer.drain()
            writer.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink ESMTP\r\n")
        mail, reverse_path, recipients = "", "", []
        while line := (await reader.readuntil(b"\r\n")).decode():
            verb = line[:4].upper()
            if verb == "EHLO":
                *lines, last = ("sink", *self.offers)
                writer.write("".join([*(f"250-{line}\r\n" for line in lines), f"250 {last}\r\n"]).encode())
            elif verb == "MAIL":
                mail, reverse_path, recipients = line.strip(), line[10:].partition(">")[0].lstrip("<"), []
                writer.write(b"250 2.1.0 ok\r\n")
            elif verb == "RCPT":
                recipient = line[8:].partition(">")[0].lstrip("<")
                reply = self.on_rcpt(recipient)
                recipients += [recipient] if reply.startswith("2") else []
                writer.write(reply.encode() + b"\r\n")
            elif verb == "DATA":
                writer.write(b"354 go\r\n")
                stuffed = b"\r\n" + await reader.readuntil(b"\r\n.\r\n")
                if self.delay_seconds:
                    self.waiting += 1
                    await asyncio.sleep(self.delay_seconds)
                    self.waiting -= 1
                content = stuffed[:-3].replace(b"\r\n.", b"\r\n")[2:]
                reply = self.on_content(content)
                if not reply.startswith("2"):
                    writer.write(reply.encode() + b"\r\n")
                    continue
                arrival = Arrival(reverse_path, tuple(recipients), content, mail)
                self.record(arrival)
                if self.is_dropping(arrival):
                    return
                while self.is_holding(arrival):
                    await asyncio.sleep(0.01)
                writer.write(reply.format(len(self.arrivals)).encode() + b"\r\n")
            elif verb == "QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250 ok\r\n")
