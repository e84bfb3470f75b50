"""A small IMAP server (RFC 3501) over real TLS: LOGIN, EXAMINE, UID SEARCH, UID FETCH with BODY.PEEK, and no writing.

It notes what it was asked, so that a test can tell what was read of which message.
"""

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_COMMAND = re.compile(rb"(\S+) (UID )?([A-Za-z]+) ?(.*)\r\n\Z", re.DOTALL)
_PARTIAL = re.compile(rb"<(\d+)\.(\d+)>")


@dataclass
class ImapServer:
    """One account with one folder. Messages by UID."""

    port: int = 0
    username: str = "noreply@example.com"
    password: str = "sesame words"
    uid_validity: int = 7
    messages: dict[int, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_silent: bool = False
    echoes: bool = False  # a refused login is quoted
    login_refusal: bytes = b"NO"
    capabilities: str = "IMAP4rev1"
    refusing: set[int] = field(default_factory=set)  # the UIDs of which nothing is to be had
    refusal: bytes = b"internal error"
    withholding: set[int] = field(default_factory=set)  # the UIDs of which nothing but the header is to be had
    stalling: set[int] = field(default_factory=set)  # the UIDs of which what is asked for never ends

    def add(self, content: bytes) -> int:
        uid = max(self.messages, default=0) + 1
        self.messages[uid] = content.replace(b"\n", b"\r\n")
        return uid

    def fetched(self, item: str) -> list[int]:
        """The UIDs of which this was asked."""
        return [int(line.split()[2]) for line in self.asked if line.startswith("UID FETCH") and item in line]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"* OK [CAPABILITY IMAP4rev1] ready\r\n")
            while line := await reader.readline():
                found = _COMMAND.match(line)
                assert found is not None, line
                tag, uid, verb, rest = found.groups()
                if verb.upper() == b"AUTHENTICATE":
                    await self.authenticate(reader, writer, tag)
                elif not self.is_silent:
                    self.obey(writer, tag, (b"UID " if uid else b"") + verb.upper(), rest)
                if verb.upper() == b"LOGOUT":
                    break
            await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def authenticate(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tag: bytes) -> None:
        writer.write(b"+ \r\n")
        said = (await reader.readline()).strip()
        self.asked.append("AUTHENTICATE (secret)")
        known = b64encode(f"\0{self.username}\0{self.password}".encode())
        told = b" OK done" if said == known else b" NO cannot log in with " + said
        writer.write(tag + told + b"\r\n")

    def obey(self, writer: asyncio.StreamWriter, tag: bytes, verb: bytes, rest: bytes) -> None:
        self.asked.append(f"{verb.decode()} {'(secret)' if verb == b'LOGIN' else rest.decode()}")
        match verb:
            case b"CAPABILITY":
                writer.write(b"* CAPABILITY %b\r\n" % self.capabilities.encode())
            case b"LOGIN":
                if rest != f'"{self.username}" "{self.password}"'.encode():
                    told = b"LOGIN " + rest if self.echoes else b"Invalid credentials"
                    writer.write(tag + b" " + self.login_refusal + b" [AUTHENTICATIONFAILED] " + told + b"\r\n")
                    return
            case b"EXAMINE":
                next_uid = max(self.messages, default=0) + 1
                writer.write(b"* %d EXISTS\r\n" % len(self.messages))
                writer.write(b"* OK [UIDVALIDITY %d] valid\r\n" % self.uid_validity)
                writer.write(b"* OK [UIDNEXT %d] next\r\n" % next_uid)
                writer.write(tag + b" OK [READ-ONLY] done\r\n")
                return
            case b"UID SEARCH":
                first = int(rest[4:].split(b":")[0]) if rest.startswith(b"UID ") else 1
                # As RFC 3501 6.4.8 has it: `*` is the last one, even where it comes before the first.
                uids = sorted(
                    {*(uid for uid in self.messages if uid >= first), *([max(self.messages)] if self.messages else [])}
                )
                writer.write(b"* SEARCH" + b"".join(b" %d" % uid for uid in uids) + b"\r\n")
            case b"UID FETCH" if self.is_refused(int(rest.split()[0]), rest):
                writer.write(tag + b" NO " + self.refusal + b"\r\n")
                return
            case b"UID FETCH" if int(rest.split()[0]) in self.stalling:
                writer.write(b"* 1 FETCH (BODY[HEADER]<0> {1000}\r\nFrom: ")
                return
            case b"UID FETCH":
                self.fetch(writer, rest)
            case b"LOGOUT":
                writer.write(b"* BYE\r\n")
            case _:
                writer.write(tag + b" BAD not known here\r\n")
                return
        writer.write(tag + b" OK done\r\n")

    def is_refused(self, uid: int, rest: bytes) -> bool:
        return uid in self.refusing or (uid in self.withholding and b"PEEK[]" in rest)

    def fetch(self, writer: asyncio.StreamWriter, rest: bytes) -> None:
        uid = int(rest.split()[0])
        content = self.messages.get(uid)
        if content is None:
            return
        name = b"BODY[HEADER]" if b"PEEK[HEADER]" in rest else b"BODY[]"
        if name == b"BODY[HEADER]":
            content = content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        if partial := _PARTIAL.search(rest):
            begin, octets = int(partial.group(1)), int(partial.group(2))
            content = content[begin : begin + octets]
            name += b"<%d>" % begin
        sequence = sorted(self.messages).index(uid) + 1
        writer.write(b"* %d FETCH (%b {%d}\r\n%b UID %d)\r\n" % (sequence, name, len(content), content, uid))


@asynccontextmanager
async def imap_server(context: ssl.SSLContext) -> AsyncIterator[ImapServer]:
    """One that listens on loopback, TLS from the first byte."""
    account = ImapServer()
    server = await asyncio.start_server(account.serve, "127.0.0.1", 0, ssl=context)
    account.port = server.sockets[0].getsockname()[1]
    try:
        yield account
    finally:
        server.close()
        await server.wait_closed()
