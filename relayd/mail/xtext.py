"""How a parameter of MAIL or RCPT spells what it could not hold: xtext (RFC 3461 4), and RFC 6533's for addresses."""

import re

# Beyond ASCII it is RFC 6533's utf-8-addr-unitext.
_XTEXT = re.compile(r"(?:[^\x00-\x20+=\x7f-\x9f\ud800-\udfff]|\+[0-9A-F]{2})+\Z")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_HEX_CHARACTER = re.compile(r"\+([0-9A-F]{2})")


def decode(text: str) -> str:
    """What it says: printable, on one line. Raises ValueError."""
    if not _XTEXT.match(text):
        raise ValueError("not xtext")
    # +0D+0A would end a line of the notification that quotes it, and an octet beyond ASCII has no charset.
    if not all(0x20 <= int(octet, 16) <= 0x7E for octet in _HEX_CHARACTER.findall(text)):
        raise ValueError("not printable")
    return _HEX_CHARACTER.sub(lambda match: chr(int(match[1], 16)), text)


def in_ascii(address: str) -> str:
    """An address of type utf-8 for a peer without SMTPUTF8 (RFC 6533 3): `\\x{F6}` for what is not ASCII."""
    return _BEYOND_ASCII.sub(lambda match: f"\\x{{{ord(match.group()):X}}}", address)
