"""The first steps of every trial over a network: the host's addresses, and whether each can be connected to."""

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from relayd.rules.outcome import Stage
from relayd.upstream.certificate import Certificate
from relayd.upstream.connection import bare_host
from relayd.upstream.cures import Place, cure
from relayd.upstream.steps import Progress, Report, StepFailed
from relayd.upstream.verdict import judge_exception

CONNECT_SECONDS = 10.0

# As getaddrinfo gives it: the family and what connect() takes.
_Found = tuple[socket.AddressFamily, Any]


async def resolve(progress: Progress, place: Place) -> list[_Found]:
    """Step `dns`, which a literal passes without asking."""
    host = bare_host(place.host)
    async with progress.step("dns") as report:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, place.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise failed("dns", place, error) from None
        addresses = list(dict.fromkeys(str(sockaddr[0]) for _, _, _, _, sockaddr in found))
        report.result = "an address, nothing to look up" if _is_literal(host) else f"{host} is {', '.join(addresses)}"
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


async def connect(progress: Progress, place: Place, found: list[_Found]) -> socket.socket:
    """Step `tcp`: every address is tried. The connection to the first that answers; the caller closes it."""
    async with progress.step("tcp") as report:
        opened: list[socket.socket] = []
        try:
            tried = await asyncio.gather(
                *(_try(family, sockaddr, place.source_address, opened) for family, sockaddr in found)
            )
        except BaseException:
            for each in opened:
                each.close()
            raise
        chosen: socket.socket | None = None
        failure: OSError | None = None
        for (_, sockaddr), (result, seconds) in zip(found, tried, strict=True):
            where = sockaddr if isinstance(sockaddr, str) else f"{sockaddr[0]} port {sockaddr[1]}"
            if isinstance(result, OSError):
                failure = failure or result
                report.details.append(f"{where}: {_text(result)}")
                continue
            report.details.append(f"{where}: connected in {seconds:.3f} s")
            if chosen is None:
                chosen, report.result = result, f"connected to {where}"
            else:
                result.close()
        if chosen is None:
            raise failed("tcp", place, failure or OSError("no address"))
    return chosen


def failed(step: str, place: Place, error: Exception) -> StepFailed:
    """What an error means for whoever looks on."""
    text = _text(error)
    return StepFailed(text, cure(step, text, None, place))


def describe_tls(report: Report, tls: ssl.SSLObject, certificate: Certificate | None, *, doubt: str | None) -> None:
    """What was agreed on. `doubt`: why the certificate was not verified, None if it was."""
    cipher = tls.cipher()
    report.result = f"{tls.version()}, {cipher[0] if cipher else 'no cipher'}"
    report.result += ", certificate verified" if doubt is None else ", certificate not verified"
    if doubt is not None:
        report.details.append(doubt)
    if certificate is not None:
        report.details += certificate_lines(certificate)


def certificate_lines(certificate: Certificate, now: datetime | None = None) -> tuple[str, ...]:
    """A certificate for the eye."""
    days = (certificate.expires_at - (now or datetime.now(UTC))).days
    ends = f"expires in {days} days" if days >= 0 else f"expired {-days} days ago"
    return (
        f"certificate for {certificate.named}",
        f"subject {certificate.subject or '-'}",
        f"issuer {certificate.issuer or '-'}",
        f"{ends}, on {certificate.expires_at:%Y-%m-%d}",
    )


async def _try(
    family: int, sockaddr: Any, source_address: str | None, opened: list[socket.socket]
) -> tuple[socket.socket | OSError, float]:
    began = time.monotonic()
    try:
        candidate = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # a machine without IPv6
        return error, time.monotonic() - began
    opened.append(candidate)
    candidate.setblocking(False)
    try:
        if source_address is not None and family != socket.AF_UNIX:
            candidate.bind((bare_host(source_address), 0))
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(candidate, sockaddr)
    except OSError as error:
        candidate.close()
        return error, time.monotonic() - began
    return candidate, time.monotonic() - began


def _text(error: Exception) -> str:
    return judge_exception(Stage.CONNECT, error).cause.text


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
