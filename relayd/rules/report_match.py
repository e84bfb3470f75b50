"""Which of a message's recipients a report speaks of. Pure."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from relayd.mail.address import Address
from relayd.mail.delivery_report import xtext_decoded


class HasRecipient(Protocol):
    """An entry."""

    @property
    def recipient(self) -> Address:
        """Its forward-path."""
        ...


Entry = TypeVar("Entry", bound=HasRecipient)


def matching(entries: Sequence[Entry], addresses: Sequence[str]) -> Entry | None:
    """The entry of one of these addresses; where none is named, or none is known, the only one there is.

    A message with one recipient needs no name: what failed behind a forward has another one.
    """
    keys = {key for address in addresses for key in _keys(address)}
    named = next((entry for entry in entries if entry.recipient.key in keys), None)
    if named is not None or len({entry.recipient.key for entry in entries}) != 1:
        return named
    return entries[0]


def is_named(entry: HasRecipient, addresses: Sequence[str]) -> bool:
    """Whether one of these addresses is the entry's own."""
    return any(entry.recipient.key in _keys(address) for address in addresses)


def _keys(address: str) -> set[str]:
    """The address as it stands, and as it would be without an xtext encoding (RFC 3461 4)."""
    found = set()
    for text in (address, xtext_decoded(address)):
        try:
            found.add(Address.parse(text.strip("<> ")).key)
        except ValueError:
            continue
    return found
