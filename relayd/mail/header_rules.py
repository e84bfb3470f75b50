"""What the header of a submitted message must keep to, so that receivers take it and its signatures hold.

Only what an app submits is judged by it. Reports from elsewhere, and what is stored, are read as they are.
"""

import re
from collections import Counter

from relayd.mail import dkim, headers
from relayd.mail.headers import Field, HeaderScan, Prepared

# RFC 5322 3.6 and RFC 2045: at most one of each. `author` judges From.
_ONCE = (
    b"Subject",
    b"To",
    b"Cc",
    b"Reply-To",
    b"Date",
    b"Message-ID",
    b"Sender",
    b"In-Reply-To",
    b"References",
    b"MIME-Version",
    b"Content-Type",
    b"Content-Transfer-Encoding",
)
_KEYS = {name.lower(): name.decode() for name in _ONCE}
_RECIPIENTS = frozenset({b"to", b"cc"})
_LISTS = {
    b"to": "put all addresses into one, with commas between them, or let relayd join them: relayd client set NAME "
    "--repeated-recipients join",
    b"reply-to": "put all addresses into one, with commas between them",
    b"in-reply-to": "put all message ids into one, with spaces between them",
    b"references": "put all message ids into one, with spaces between them",
}
_LISTS[b"cc"] = _LISTS[b"to"]
# What OpenDKIM and others read as white space, or not, and so compute another hash.
_CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")
# What OpenDKIM can verify.
MAX_SIGNED_FIELD_OCTETS = 65_535


def checked(content: bytes, scan: HeaderScan, *, joins_recipients: bool = False) -> Prepared:
    """The message, with several To or Cc fields made one if `joins_recipients`. Raises ValueError, fit for a reply."""
    found = _CONTROL.search(content, 0, sum([len(field.raw) for field in scan.fields]))
    if found:
        line = content.count(b"\r\n", 0, found.start()) + 1
        raise ValueError(f"header line {line} holds the control character 0x{found.group()[0]:02X}; take it out")
    prepared = Prepared(content, scan)
    repeated = {key: count for key, count in Counter([field.key for field in scan.fields]).items() if count > 1}
    for key, name in _KEYS.items():
        if key not in repeated:
            continue
        if not (joins_recipients and key in _RECIPIENTS):
            how = _LISTS.get(key, "take out all but one")
            raise ValueError(f"message has {repeated[key]} {name} fields, where RFC 5322 allows one; {how}")
        prepared = headers.with_fields(prepared, _joined(prepared.scan, key, name.encode()))
    for field in prepared.scan.fields:
        if len(field.raw) > MAX_SIGNED_FIELD_OCTETS and field.key in dkim.SIGNED:
            octets = f"{len(field.raw):,} octets; at most {MAX_SIGNED_FIELD_OCTETS:,} can be signed"
            raise ValueError(f"{field.name.decode()} has {octets}: make it shorter")
    headers.message_id(prepared.scan)
    return prepared


def _joined(scan: HeaderScan, key: bytes, name: bytes) -> tuple[Field, ...]:
    """The fields, with all of that name in the place of the first; of their values only the ends change."""
    values = [field.raw[len(field.name) + 1 :].strip(b" \t\r\n,") for field in scan.fields if field.key == key]
    one = Field(name, name + b": " + b",\r\n ".join([value for value in values if value]) + b"\r\n", key)
    fields: list[Field] = []
    for field in scan.fields:
        if field.key != key:
            fields.append(field)
        elif one not in fields:
            fields.append(one)
    return tuple(fields)
