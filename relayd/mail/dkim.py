"""Sign messages with DKIM (RFC 6376, RFC 8463), relaxed/relaxed, in time linear in the message's size.

The whole body is signed (never `l=`), and every field that a reader is shown is named once more than it occurs, so
that one added in front breaks the signature.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from relayd.mail.dkim_key import SigningKey
from relayd.mail.dkim_record import Algorithm
from relayd.mail.headers import Field, HeaderScan

_LINE_CHARACTERS = 78
# Signed even when absent: adding one changes what the reader sees or how the body is read.
_ALWAYS = (
    b"From",
    b"To",
    b"Cc",
    b"Subject",
    b"Date",
    b"Message-ID",
    b"Reply-To",
    b"Sender",
    b"In-Reply-To",
    b"References",
    b"MIME-Version",
    b"Content-Type",
    b"Content-Transfer-Encoding",
)
# Signed when present: a mailing list that adds its own must not break the signature.
_WHEN_PRESENT = (b"List-Id", b"List-Unsubscribe", b"List-Unsubscribe-Post")
_KEYS = {name.lower(): (name, name in _ALWAYS) for name in (*_ALWAYS, *_WHEN_PRESENT)}
SIGNED = frozenset(_KEYS)
_NAME = b"DKIM-Signature"
_WHITESPACE = re.compile(rb"[\t ]+")
_SHA256 = Prehashed(SHA256())


def sign(
    content: bytes, scan: HeaderScan, keys: Sequence[SigningKey], *, signed_at: int, left_out: Collection[bytes] = ()
) -> bytes:
    """The DKIM-Signature fields to put in front of `content`, one for each key, folded, each with its CRLF.

    `content` is as `headers.prepare` returned it and `scan` is its scan; `signed_at` is in seconds since the epoch.
    `left_out` names, in lower case, fields that the next server replaces: the signatures do not cover them.
    """
    if not keys:
        return b""
    body_hash = base64.b64encode(hashlib.sha256(canonical_body(content[scan.body_offset :])).digest())
    names, fields = _chosen(scan.fields, left_out)
    headers_hash = hashlib.sha256(b"".join([_canonical_field(field.key, field.value) for field in fields]))
    signatures = []
    for key in keys:
        unsigned = _unsigned_field(key, names, body_hash, signed_at)
        digest = headers_hash.copy()
        # RFC 6376 3.7: the field itself comes last, with an empty b= and without its CRLF.
        value = unsigned[len(_NAME) + 1 :].replace(b"\r\n", b"").strip(b" \t")
        digest.update(_canonical_field(_NAME.lower(), value).removesuffix(b"\r\n"))
        signatures.append(unsigned + _folded_signature(_signature(key, digest.digest())) + b"\r\n")
    return b"".join(signatures)


def canonical_body(body: bytes) -> bytes:
    """The relaxed body (RFC 6376 3.4.4): as receivers compute it, with the last CRLF even if missing."""
    body = body.replace(b"\t", b" ")
    # Halves each run in one pass. A regex that looks for the line's end after the run is quadratic in its length.
    while b"  " in body:
        body = body.replace(b"  ", b" ")
    # No bare CR or LF gets here, so the trailing ones are empty lines.
    body = body.replace(b" \r\n", b"\r\n").removesuffix(b" ").rstrip(b"\r\n")
    return body + b"\r\n" if body else b""


def _chosen(fields: Sequence[Field], left_out: Collection[bytes]) -> tuple[tuple[bytes, ...], list[Field]]:
    """The names for h= and the fields that they select: of one name from the bottom up (RFC 6376 5.4.2)."""
    by_key: dict[bytes, list[Field]] = {}
    for field in reversed(fields):
        if field.key in _KEYS:
            by_key.setdefault(field.key, []).append(field)
    names: list[bytes] = []
    chosen: list[Field] = []
    for key, (name, is_always) in _KEYS.items():
        same = by_key.get(key, ())
        if (same or is_always) and key not in left_out:
            # The one too many selects nothing now, and would select a field added later.
            names += [name] * (len(same) + 1)
            chosen += same
    return tuple(names), chosen


def _canonical_field(key: bytes, value: bytes) -> bytes:
    # RFC 6376 3.4.2.
    if b"\t" in value or b"  " in value:
        value = _WHITESPACE.sub(b" ", value)
    return key + b":" + value + b"\r\n"


def _unsigned_field(key: SigningKey, names: tuple[bytes, ...], body_hash: bytes, signed_at: int) -> bytes:
    """The field up to and with its empty `b=`, which stands last so that the signature can follow it."""
    time = str(signed_at).encode()
    start, middle, end = _field_around(key.algorithm, key.domain, key.selector, names, len(time), len(body_hash))
    return start + time + middle + body_hash + end


@lru_cache(maxsize=1000)
def _field_around(
    algorithm: Algorithm, domain: str, selector: str, names: tuple[bytes, ...], time_octets: int, hash_octets: int
) -> tuple[bytes, bytes, bytes]:
    """What stands before, between and after the time and the body's hash: the same for most messages of a domain."""
    header_list = [name.decode() + ":" for name in names]
    header_list[0] = f"h={header_list[0]}"
    header_list[-1] = header_list[-1].removesuffix(":") + ";"
    tags = ["v=1;", f"a={algorithm};", "c=relaxed/relaxed;", f"d={domain};", f"s={selector};"]
    # NUL cannot be in any of the others.
    time, body_hash = "\0" * time_octets, "\0" * hash_octets
    tags += [f"t={time};", *header_list, f"bh={body_hash};"]
    lines = [f"{_NAME.decode()}:"]
    joint = " "
    for tag in tags:
        if len(lines[-1]) + len(joint) + len(tag) <= _LINE_CHARACTERS:
            lines[-1] += joint + tag
        else:
            lines.append(f"\t{tag}")
        joint = "" if tag.endswith(":") else " "
    field = "\r\n".join([*lines, "\tb="]).encode("ascii")
    start, _, rest = field.partition(time.encode())
    middle, _, end = rest.partition(body_hash.encode())
    return start, middle, end


def _signature(key: SigningKey, digest: bytes) -> bytes:
    if key.algorithm is Algorithm.ED25519_SHA256:
        return cast(Ed25519PrivateKey, key.private_key).sign(digest)  # RFC 8463 3: what PureEdDSA signs is the digest.
    return cast(RSAPrivateKey, key.private_key).sign(digest, PKCS1v15(), _SHA256)


def _folded_signature(signature: bytes) -> bytes:
    text = base64.b64encode(signature)
    width = _LINE_CHARACTERS - len("\tb=")
    return b"\r\n\t".join(text[i : i + width] for i in range(0, len(text), width))
