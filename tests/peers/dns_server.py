"""A DNS server that knows what a test tells it: real packets over UDP and TCP, on 127.0.0.1."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


@dataclass
class DnsServer:
    """`zone` maps (name, type) to records as a zone file writes them; any other name does not exist.

    Silent while `is_silent`, broken while `is_broken`; `asked` grows. An answer that does not fit UDP goes over TCP.
    """

    zone: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    is_silent: bool = False
    is_broken: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    def publish(self, name: str, type: str, *values: str) -> None:
        self.zone[(name, type)] = list(values)

    def txt(self, name: str, text: str) -> None:
        """A TXT record, in strings of at most 255 octets."""
        parts = [text[i : i + 255] for i in range(0, len(text), 255)]
        self.publish(name, "TXT", " ".join(f'"{part}"' for part in parts))

    def answer(self, packet: bytes, *, over_udp: bool) -> bytes | None:
        query = dns.message.from_wire(packet)
        (question,) = query.question
        name, type = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, type))
        if self.is_silent:
            return None
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        values = self.zone.get((name, type))
        if self.is_broken:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif values:
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", type, *values))
        elif not any(known == name for known, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        packed = reply.to_wire(max_size=65535)
        if over_udp and len(packed) > 1232:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
            packed = reply.to_wire()
        return packed


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: Any) -> None:
        # asyncio's own is no DatagramTransport by its class.
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, over_udp=True)
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    """One on a port of its own."""
    server = DnsServer()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2))
        answer = server.answer(await reader.readexactly(length), over_udp=False)
        if answer is not None:
            writer.write(len(answer).to_bytes(2) + answer)
            await writer.drain()
        writer.close()

    over_tcp = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.port = over_tcp.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(server), local_addr=("127.0.0.1", server.port))
    yield server
    transport.close()
    over_tcp.close()
    await over_tcp.wait_closed()
