"""Write trace and date fields (RFC 5321 4.4, RFC 5322 3.3). What a peer said can never end or add a field."""

import re
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from functools import lru_cache

from relayd.mail.address import Address

MAX_HELO_CHARACTERS = 255

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_NOT_IN_A_COMMENT = re.compile(r"[^A-Za-z0-9._:=/ -]")


def received_field(
    *,
    helo: str,
    peer: str | None,
    host: str,
    protocol: str,
    queue_id: str,
    when: datetime,
    tls: str | None,
    recipient: Address | None,
) -> bytes:
    """A folded Received field with its CRLF.

    `helo` is what the client called itself; `peer` its IP address, None on a Unix socket; `protocol` as registered
    for `with` (`ESMTPSA`); `tls` what was negotiated (`TLSv1.3 TLS_AES_256_GCM_SHA384`). Give `recipient` only when
    it is the sole one, or the blind copies are disclosed (RFC 5321 7.2).
    """
    origin = f"from {_name(helo)}" + (f" ({_address_literal(peer)})" if peer else "")
    lines = [f"Received: {origin}"]
    if tls:
        lines.append(f"(using {_NOT_IN_A_COMMENT.sub('?', tls)})")
    lines += [f"by {_name(host)} (relayd) with {_name(protocol)}", f"id {_name(queue_id)}"]
    # Only in ASCII, so that no message needs SMTPUTF8 because of this field.
    if recipient is not None and not recipient.needs_smtputf8:
        lines.append(f"for <{recipient.wire}>")
    return ("\r\n\t".join(lines) + f";\r\n\t{date_text(when)}\r\n").encode()


def date_text(when: datetime) -> str:
    """`when` (which must know its time zone) as RFC 5322 writes it: `Tue, 01 Jul 2025 10:52:37 +0200`."""
    if when.tzinfo is None:
        raise ValueError("a date without a time zone")
    return _date_text(when.replace(microsecond=0, tzinfo=None), when.utcoffset() or timedelta())


@lru_cache(maxsize=64)
def _date_text(local: datetime, offset: timedelta) -> str:
    # Many messages come in one second. By local time and offset: equal instants are not written alike.
    return format_datetime(local.replace(tzinfo=timezone(offset)))


def _name(text: str) -> str:
    return _NOT_IN_A_NAME.sub("?", text)[:MAX_HELO_CHARACTERS] or "unknown"


def _address_literal(peer: str) -> str:
    # RFC 5321 4.1.3.
    return f"[IPv6:{_name(peer)}]" if ":" in peer else f"[{_name(peer)}]"
