"""From a transmission to what SendGrid's Web API takes, which is not the message itself but its pieces.

What the pieces cannot carry is refused. It blocks: call in a thread.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import Header
from email.utils import getaddresses
from typing import Any

from relayd.mail import encoded_words
from relayd.mail.address import Address
from relayd.mail.author import sole_author
from relayd.mail.envelope import Transmission
from relayd.mail.headers import Field, HeaderScan, scan
from relayd.rules.outcome import Failed, Scope
from relayd.upstream.mime import TEXTS, Attachment, Parts, take_apart
from relayd.upstream.verdict import refuse

MAX_OCTETS = 30 * 1024 * 1024
MAX_RECIPIENTS = 1000
MAX_ADDRESS_FIELD_OCTETS = 64 * 1024
MAX_SUBJECT_OCTETS = 8192

# Not carried: SendGrid writes its own, or it speaks of the way here.
_LEFT_OUT = frozenset(
    {b"received", b"return-path", b"dkim-signature", b"mime-version", b"date", b"authentication-results"}
    | {b"arc-seal", b"arc-message-signature", b"arc-authentication-results", b"delivered-to", b"x-received"}
)
_CARRIED_OTHERWISE = frozenset({b"from", b"to", b"cc", b"bcc", b"reply-to", b"subject"})
_RESERVED = frozenset({b"x-sg-id", b"x-sg-eid"})


@dataclass(frozen=True, slots=True)
class Composed:
    """`places` says which recipient each address of the request is: `personalizations.0.to.0`."""

    body: bytes
    places: dict[str, Address]


def compose(transmission: Transmission) -> Composed | Failed:
    """The request's body for all recipients of the transmission, or why there is none."""
    if transmission.reverse_path is None:
        return refuse(Scope.MESSAGE, "5.6.0", "SendGrid's API sends no bounces: give them an upstream of SMTP")
    if len(transmission.content) > MAX_OCTETS:
        text = f"the message has {len(transmission.content)} octets, SendGrid's API takes {MAX_OCTETS}"
        return refuse(Scope.MESSAGE, "5.3.4", text)
    if len(transmission.recipients) > MAX_RECIPIENTS:
        return refuse(Scope.MESSAGE, "5.5.3", f"SendGrid's API takes {MAX_RECIPIENTS} recipients at once")
    try:
        header = scan(transmission.content)
        said = _header(header)
        parts = take_apart(transmission.content)
    except ValueError as error:
        text = f"SendGrid's API cannot carry this message: {error}; an upstream of SMTP can"
        return refuse(Scope.MESSAGE, "5.6.1", text)
    personalizations, places = _personalizations(header, transmission.recipients)
    request = {
        "personalizations": personalizations,
        **said,
        "content": _content(parts),
        "custom_args": {"relayd_queue_id": str(transmission.queue_id)},
    }
    if parts.attachments:
        request["attachments"] = [_attachment(each) for each in parts.attachments]
    return Composed(json.dumps(request).encode(), places)


def _header(header: HeaderScan) -> dict[str, Any]:
    author = sole_author(header)
    subject = header.first(b"Subject")
    if subject is None or not subject.value:
        raise ValueError("it has no subject")
    if len(subject.value) > MAX_SUBJECT_OCTETS:
        raise ValueError(f"its subject has more than {MAX_SUBJECT_OCTETS} octets")
    names = {address.key: name for name, address in _addresses(header, b"From")}
    said: dict[str, Any] = {
        "from": _party(names.get(author.key, ""), author),
        "subject": encoded_words.decode(subject.value, MAX_SUBJECT_OCTETS),
    }
    replies_to = _addresses(header, b"Reply-To")
    if header.first(b"Reply-To") is not None and not replies_to:
        raise ValueError("its Reply-To cannot be read")
    if len(replies_to) == 1:
        said["reply_to"] = _party(*replies_to[0])
    elif replies_to:
        said["reply_to_list"] = [_party(*each) for each in replies_to]
    others = _others(header.fields)
    if others:
        said["headers"] = others
    return said


def _others(fields: Sequence[Field]) -> dict[str, str]:
    found: dict[str, tuple[str, str]] = {}
    for field in fields:
        name = field.name.decode()
        if field.key in _RESERVED:
            raise ValueError(f"its field {name} is SendGrid's own")
        if field.key in _LEFT_OUT | _CARRIED_OTHERWISE or field.key.startswith(b"content-"):
            continue
        if name.lower() in found:
            raise ValueError(f"it has two fields {name}")
        try:
            text = field.value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"its field {name} is neither ASCII nor UTF-8") from None
        found[name.lower()] = (name, text if text.isascii() else Header(text, "utf-8").encode(maxlinelen=0))
    return dict(found.values())


def _personalizations(
    header: HeaderScan, recipients: Sequence[Address]
) -> tuple[list[dict[str, Any]], dict[str, Address]]:
    """As To and Cc say, if all whom they name are recipients; else each recipient by himself, as the only one in To.

    Whoever is named would get the message: somebody who is not a recipient of this transmission must not.
    """
    wanted = {address.key: address for address in recipients}
    to, cc = _addresses(header, b"To"), _addresses(header, b"Cc")
    if not to or any(address.key not in wanted for _, address in (*to, *cc)):
        alone = list(wanted.values())
        places = {f"personalizations.{place}.to.0": address for place, address in enumerate(alone)}
        return [{"to": [{"email": address.wire}]} for address in alone], places
    left = dict(wanted)
    together: dict[str, Any] = {}
    places = {}
    # Each address may stand once: the first place where it does is his.
    for kind, named in (("to", to), ("cc", cc), ("bcc", [("", address) for address in recipients])):
        taken = [(name, left.pop(address.key)) for name, address in named if address.key in left]
        if taken:
            together[kind] = [_party(*each) for each in taken]
            places.update({f"personalizations.0.{kind}.{at}": address for at, (_, address) in enumerate(taken)})
    return [together], places


def _addresses(header: HeaderScan, name: bytes) -> list[tuple[str, Address]]:
    """Those of all fields of that name; none if any cannot be read."""
    found = []
    for field in header.all(name):
        if len(field.value) > MAX_ADDRESS_FIELD_OCTETS:
            return []
        try:
            for display_name, text in getaddresses([field.value.decode("utf-8", "surrogateescape")]):
                if text:
                    found.append(
                        (encoded_words.decode(display_name.encode("utf-8", "replace"), 255), Address.parse(text))
                    )
        except (ValueError, RecursionError):
            return []
    return found


def _party(name: str, address: Address) -> dict[str, str]:
    return {"email": address.wire, "name": name} if name else {"email": address.wire}


def _content(parts: Parts) -> list[dict[str, str]]:
    # In the order that the API demands. It takes no empty text; an empty line is the same to the reader.
    return [{"type": kind, "value": parts.texts[kind] or "\r\n"} for kind in TEXTS if kind in parts.texts]


def _attachment(each: Attachment) -> dict[str, str]:
    said = {
        "content": base64.b64encode(each.content).decode(),
        "type": each.type,
        "filename": each.filename,
        "disposition": "inline" if each.is_inline else "attachment",
    }
    return said if each.content_id is None else {**said, "content_id": each.content_id}
