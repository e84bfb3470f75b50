"""Four kinds of stranger's load, each a process: `python -m tests.strangers.loads KIND PORT SECONDS LOGIN SECRET`.

Each connection begins anew as soon as it is sent away. Strangers come from addresses of their own (127.0.1.x), the
tenant from the app's.
"""

import asyncio
import contextlib
import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable

CONNECTIONS = 4
IDLE_CONNECTIONS = 150
TENANT_PAUSE_SECONDS = 0.2

Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]

_GARBAGE = (
    b"EHLO x\r\nRCPT TO:<a@example.net>\r\nDATA\r\nMAIL FROM:<a@b..c>\r\nFOO\r\nSTARTTLS\r\nRCPT TO:<>\r\n"
    b"\xff\xfe\r\nMAIL FROM:<app@example.com>\r\nVRFY root\r\nEXPN list\r\n" + b"A" * 5000 + b"\r\n"
)


async def refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Commands that are refused, as fast as they are answered."""
    while True:
        writer.write(_GARBAGE * 5)
        await writer.drain()
        if not await reader.read(65_536):
            return


async def failed_logins(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """Guesses, as many as a session takes."""
    writer.write(b"EHLO x\r\n")
    for guess in range(20):
        writer.write(b"AUTH PLAIN " + b64encode(f"\0app\0guess{number}-{guess}".encode()) + b"\r\n")
        await writer.drain()
        if not await reader.read(65_536):
            return


async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
    """A connection that is held, with an octet a second."""
    for octet in b"EHLO " + b"x" * 100_000:
        writer.write(bytes([octet]))
        await asyncio.sleep(1)
        if reader.at_eof() or writer.is_closing():
            return


def hostile_messages() -> list[bytes]:
    """What costs the most to take in, of what one login may send."""
    head = b"From: app@example.com\r\nMessage-ID: <x@example.com>\r\n"
    many = b",\r\n ".join(b"r%d@example.net" % number for number in range(20_000))
    return [
        head + b"To: " + many[:60_000].rpartition(b",")[0] + b"\r\n\r\nx\r\n",
        head + b"".join(b"X-%d: y\r\n" % number for number in range(990)) + b"\r\nx\r\n",
        head + b"Subject: " + b"=?utf-8?q?=41?= " * 60 + b"\r\n\r\n" + b"x" * 60_000 + b"\r\n",
        head + b"X: " + b"\r\n y" * 100_000 + b"\r\n\r\nx\r\n",
        head + b"\r\n" + (b" " * 900 + b"\r\n") * 1000,
        head + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 50_000,
        head + b"Sender: ceo@victim.example\r\n\r\nx\r\n",
        b"From: ceo@victim.example\r\n\r\nx\r\n",
        head + b"Authentication-Results: " + b"(" * 20_000 + b"\r\n\r\nx\r\n",
    ]


def tenant(login: str, secret: str) -> Session:
    """A login that sends hostile messages, with a pause behind each."""
    messages = hostile_messages()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        credentials = b64encode(f"\0{login}\0{secret}".encode())
        writer.write(b"EHLO x\r\nAUTH PLAIN " + credentials + b"\r\n")
        index = number
        while True:
            content = messages[index % len(messages)].replace(b"\r\n.", b"\r\n..")
            writer.write(b"MAIL FROM:<app@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n" + content + b".\r\n")
            await writer.drain()
            if not await reader.read(65_536):
                return
            await asyncio.sleep(TENANT_PAUSE_SECONDS)
            index += 1

    return send


async def again_and_again(session: Session, port: int, number: int, source: str) -> int:
    """Sessions without end, one after the other."""
    while True:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            await session(reader, writer, number)
        except OSError:
            await asyncio.sleep(0.05)
        finally:
            if writer is not None:
                writer.transport.abort()


async def run(kind: str, port: int, seconds: float, login: str, secret: str) -> None:
    """One kind, for so long."""
    sessions: dict[str, tuple[Session, int, str]] = {
        "refused": (refused, CONNECTIONS, "127.0.1.1"),
        "logins": (failed_logins, CONNECTIONS, "127.0.1.2"),
        "slow": (slow, IDLE_CONNECTIONS, "127.0.1.3"),
        "tenant": (tenant(login, secret), 2, "127.0.0.1"),
    }
    session, connections, source = sessions[kind]
    tasks = [asyncio.create_task(again_and_again(session, port, each, source)) for each in range(connections)]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*tasks), seconds)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5]))
