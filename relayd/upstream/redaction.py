"""Keep our own secrets out of what a peer says: a server that quotes a login must not bring it into log and queue.

Before its text is shortened: what is left of a secret that was cut through would not be known for one.
"""

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
# What a signed JWT (RFC 7515 3.1) is part of: three runs of letters, the first of which may have more before it.
_DOTTED = re.compile(r"[\w.-]+")
_BEGINNING = "eyJ"


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
    """`text` without anything that looks like one: a service account's assertion gets tokens for whoever has it."""
    return _DOTTED.sub(lambda found: _without_jwt(found.group()), text)


def _without_jwt(dotted: str) -> str:
    """By hand: an expression that looks for it everywhere takes the square of the length."""
    runs = dotted.split(".")
    kept, at = [], 0
    while at < len(runs):
        before, _, letters = runs[at].partition(_BEGINNING)
        is_token = bool(letters) and at + 2 < len(runs) and all(runs[at + 1 : at + 3])
        kept.append(before + MASK if is_token else runs[at])
        at += 3 if is_token else 1
    return ".".join(kept)


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
