"""Who stands in To and Cc (RFC 5322 3.6.3), read strictly: some upstreams send to whom they find there.

What two programs could read in two ways is an error, as in From. Groups are taken: their members count. Linear time.
"""

from relayd.mail.address import Address
from relayd.mail.author import tokens
from relayd.mail.headers import HeaderScan

# A message's own Bcc is gone since intake. Resent- fields: whether they are sent to as well is for nobody to find out.
_FIELDS = (b"To", b"Cc", b"Bcc", b"Resent-To", b"Resent-Cc", b"Resent-Bcc")
_MAX_FIELD_OCTETS = 64 * 1024


def header_recipients(scan: HeaderScan) -> dict[str, Address]:
    """Every address in To, Cc and their like, by key. Raises ValueError with a reason fit for a reply."""
    found: dict[str, Address] = {}
    for name in _FIELDS:
        for field in scan.all(name):
            for address in _addresses(name.decode(), field.value):
                found.setdefault(address.key, address)
    return found


def _addresses(name: str, value: bytes) -> list[Address]:
    if len(value) > _MAX_FIELD_OCTETS:
        raise ValueError(f"{name} is over {_MAX_FIELD_OCTETS} octets")
    text = value.decode("utf-8", "surrogateescape")  # a display name may be in any charset; no address is
    found: list[Address] = []
    has_phrase, has_address = False, False
    try:
        for kind, part, _ in tokens(text):
            if kind in ("comma", "group"):
                # What stands before the colon of a group is its name, and no address.
                if (has_address and part == ":") or (has_phrase and not has_address and part != ":"):
                    raise ValueError
                has_phrase, has_address = False, False
            elif kind == "phrase" and not has_address:
                has_phrase = True
            elif not has_address and (kind == "angle" or (kind == "address" and not has_phrase)):
                found.append(_address(part))
                has_address = True
            else:
                raise ValueError
    except ValueError:
        raise ValueError(f"{name} cannot be read with certainty") from None
    if has_phrase and not has_address:
        raise ValueError(f"{name} cannot be read with certainty")
    return found


def _address(text: str) -> Address:
    address = Address.parse(text)
    if "=?" in address.local_part:
        # RFC 2047 5 forbids it, and a program that decodes it sees another address.
        raise ValueError
    return address
