"""Sign messages with DKIM (RFC 6376, RFC 8463), relaxed/relaxed, in time linear in the message's size.

The whole body is signed (never `l=`), and every field that a reader is shown is named once more than it occurs, so
that one added in front breaks the signature.
"""

import base64
import hashlib
import re
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from relayd.mail.dkim_key import PrivateKey, SigningKey
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
_WHITESPACE = re.compile(rb"[\t ]+")
_SHA256 = Prehashed(SHA256())


def sign(content: bytes, scan: HeaderScan, keys: Sequence[SigningKey], *, signed_at: int) -> bytes:
    """The DKIM-Signature fields to put in front of `content`, one for each key, folded, each with its CRLF.

    `content` is as `headers.prepare` returned it and `scan` is its scan; `signed_at` is in seconds since the epoch.
    """
    if not keys:
        return b""
    body_hash = base64.b64encode(hashlib.sha256(canonical_body(content[scan.body_offset :])).digest()).decode()
    names, fields = _chosen(scan.fields)
    headers_hash = hashlib.sha256(b"".join(_canonical_field(field) for field in fields))
    signatures = []
    for key in keys:
        unsigned = _unsigned_field(key, names, body_hash, signed_at)
        digest = headers_hash.copy()
        # RFC 6376 3.7: the field itself comes last, with an empty b= and without its CRLF.
        digest.update(_canonical_field(Field(b"DKIM-Signature", unsigned)).removesuffix(b"\r\n"))
        signatures.append(unsigned + _folded_signature(_signature(key.private_key, digest.digest())) + b"\r\n")
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


def _chosen(fields: Sequence[Field]) -> tuple[list[bytes], list[Field]]:
    """The names for h= and the fields that they select: of one name from the bottom up (RFC 6376 5.4.2)."""
    by_name: dict[bytes, list[Field]] = {name.lower(): [] for name in (*_ALWAYS, *_WHEN_PRESENT)}
    for field in reversed(fields):
        if (same := by_name.get(field.name.lower())) is not None:
            same.append(field)
    names: list[bytes] = []
    chosen: list[Field] = []
    for name in (*_ALWAYS, *_WHEN_PRESENT):
        same = by_name[name.lower()]
        if same or name in _ALWAYS:
            # The one too many selects nothing now, and would select a field added later.
            names += [name] * (len(same) + 1)
            chosen += same
    return names, chosen


def _canonical_field(field: Field) -> bytes:
    # RFC 6376 3.4.2.
    return field.name.lower() + b":" + _WHITESPACE.sub(b" ", field.value) + b"\r\n"


def _unsigned_field(key: SigningKey, names: Sequence[bytes], body_hash: str, signed_at: int) -> bytes:
    """The field up to and with its empty `b=`, which stands last so that the signature can follow it."""
    header_list = [name.decode() + ":" for name in names]
    header_list[0] = f"h={header_list[0]}"
    header_list[-1] = header_list[-1].removesuffix(":") + ";"
    tags = ["v=1;", f"a={key.algorithm};", "c=relaxed/relaxed;", f"d={key.domain};", f"s={key.selector};"]
    tags += [f"t={signed_at};", *header_list, f"bh={body_hash};"]
    lines = ["DKIM-Signature:"]
    joint = " "
    for tag in tags:
        if len(lines[-1]) + len(joint) + len(tag) <= _LINE_CHARACTERS:
            lines[-1] += joint + tag
        else:
            lines.append(f"\t{tag}")
        joint = "" if tag.endswith(":") else " "
    return "\r\n".join([*lines, "\tb="]).encode("ascii")


def _signature(private_key: PrivateKey, digest: bytes) -> bytes:
    if isinstance(private_key, Ed25519PrivateKey):
        return private_key.sign(digest)  # RFC 8463 3: the SHA-256 digest is what PureEdDSA signs.
    return private_key.sign(digest, PKCS1v15(), _SHA256)


def _folded_signature(signature: bytes) -> bytes:
    text = base64.b64encode(signature)
    width = _LINE_CHARACTERS - len("\tb=")
    return b"\r\n\t".join(text[i : i + width] for i in range(0, len(text), width))
