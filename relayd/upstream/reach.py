"""The first steps of a trial of an HTTP API: the host's addresses, and whether each can be connected to.

Also how any trial shows addresses and certificates.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address

from relayd.rules.outcome import Stage
from relayd.upstream import addresses
from relayd.upstream.addresses import HostAddress
from relayd.upstream.certificate import Certificate
from relayd.upstream.cures import Place, cure
from relayd.upstream.settings import bare_host
from relayd.upstream.steps import Progress, Report, StepFailed
from relayd.upstream.verdict import Unfit, judge_exception


async def resolve(progress: Progress, place: Place) -> list[HostAddress]:
    """Step `dns`, which a literal passes without asking."""
    async with progress.step("dns") as report:
        try:
            found = await addresses.find(place.host, place.port)
        except (OSError, Unfit) as error:
            raise failed("dns", place, error) from None
        report.result = looked_up(place.host, found)
    return found


async def connect(progress: Progress, place: Place, found: Sequence[HostAddress], *, seconds: float) -> socket.socket:
    """Step `tcp`: every address is tried. The connection to the first that answers; the caller closes it."""
    async with progress.step("tcp") as report:
        began = progress.clock()

        opened: dict[HostAddress, socket.socket] = {}

        async def tried(address: HostAddress) -> OSError | None:
            try:
                opened[address] = await addresses.connect(address, source_address=None, seconds=seconds)
            except OSError as error:
                report.details.append(f"{address.with_port}: {_text(error)}")
                return error
            report.details.append(f"{address.with_port}: connected in {progress.clock() - began:.3f} s")
            return None

        try:
            errors = await asyncio.gather(*map(tried, found))
            if not opened:
                raise failed("tcp", place, next(error for error in errors if error is not None))
        except BaseException:
            for each in opened.values():
                each.close()
            raise
        where = next(address for address in found if address in opened)
        chosen = opened.pop(where)
        for each in opened.values():
            each.close()
        report.result = f"connected to {where.with_port}"
        if dead := sum(error is not None for error in errors):
            report.warning = some_dead(dead, len(found))
    return chosen


def looked_up(host: str, found: Sequence[HostAddress]) -> str:
    """What `dns` has found."""
    if _is_literal(bare_host(host)):
        return "an address, nothing to look up"
    return f"{bare_host(host)} is {', '.join(dict.fromkeys(map(str, found)))}"


def some_dead(dead: int, all_of_them: int) -> str:
    """The warning that not every address works."""
    return f"{dead} of {all_of_them} addresses {'does' if dead == 1 else 'do'} not work; mail goes through the others"


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


def _text(error: Exception) -> str:
    return judge_exception(Stage.CONNECT, error).cause.text


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
