"""Sender, Resent-From and Resent-Sender: they say who handed a message on, so nobody may name somebody else there."""

from relayd.intake.senders import Senders
from relayd.intake.submission import Identity
from relayd.mail import author, headers
from relayd.mail.headers import Field, Prepared
from relayd.mail.reply import Reply

_SENDER = b"sender"
_RESENT = b"resent-"
_CHECKED = frozenset({_SENDER, b"resent-from", b"resent-sender"})


async def checked(senders: Senders, identity: Identity, message: Prepared) -> Prepared | Reply:
    """The message, without the fields that name somebody else if its client has chosen that; or the refusal.

    All Resent-* fields go together: they describe one event (RFC 5322 3.6.6). Raises StoreUnavailable.
    """
    foreign: set[bytes] = set()
    for field in message.scan.fields:
        if field.key not in _CHECKED or not field.value:
            continue
        refusal = await _refusal(senders, identity, field)
        if refusal is None:
            continue
        if not identity.client.removes_foreign_senders:
            return refusal
        foreign.add(_SENDER if field.key == _SENDER else _RESENT)
    if not foreign:
        return message
    return headers.with_fields(
        message, tuple([field for field in message.scan.fields if not field.key.startswith(tuple(foreign))])
    )


async def _refusal(senders: Senders, identity: Identity, field: Field) -> Reply | None:
    try:
        addresses = author.named_in(field)
    except ValueError as error:
        return Reply(550, "5.7.1", f"{error}; or leave the field out")
    for address in addresses:
        refusal = await senders.check_named(identity, address, field.name.decode("ascii"))
        if refusal is not None:
            return refusal
    return None
