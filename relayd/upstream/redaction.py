"""Keep our own secrets out of what a peer says: a server that quotes a login must not bring it into log and queue.

Before its text is shortened: what is left of a secret that was cut through would not be known for one.
"""

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
# A signed JWT (RFC 7515 3.1), of which a service account's assertion is one: whoever has it gets tokens for it.
# What stands before it may be joined to it, as in `%3DeyJ…`. Each run of letters is looked at once, whoever wrote it.
_JWT = re.compile(r"(?<![\w-])((?:(?!eyJ)[\w-])*+)eyJ[\w-]++\.[\w-]++\.[\w-]++")


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Every form in which a peer may quote one of these: the longest first, so that none hides a part of another."""
    found = {form for secret in secrets if secret for form in _forms(secret)}
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def redacted(text: str, spelt: Iterable[str]) -> str:
    """`text` without any of these `spellings`."""
    for form in spelt:
        text = text.replace(form, MASK)
    return text


def without_jwt(text: str) -> str:
    """`text` without anything that looks like one."""
    return _JWT.sub(rf"\1{MASK}", text)


def _forms(secret: str) -> tuple[str, ...]:
    return (
        secret,
        base64.b64encode(secret.encode()).decode(),
        base64.urlsafe_b64encode(secret.encode()).decode(),
        quote(secret, safe=""),
        quote_plus(secret),
        _xtext(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    )


def _xtext(secret: str) -> str:
    # RFC 3461 4.
    return "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in secret.encode()
    )
