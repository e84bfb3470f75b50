"""Decode RFC 2047 encoded words for people to read. Never fails: what cannot be decoded is shown as it can be."""

import binascii
import re

from relayd.mail import charsets

# Enough for a word around each character; the rest would be cut anyway.
_OCTETS_PER_CHARACTER = 64
# Spaces in the text are against RFC 2047 2, and common. No class matches `?`, so that the search stays linear.
_WORD = re.compile(rb"=\?([^?\s]+)\?([bBqQ])\?([^?\r\n]*)\?=")
# C0, C1, DEL and lone surrogates break TEXT columns and logs; line separators and bidi controls fool the reader.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def decode(value: bytes, limit: int) -> str:
    """An unfolded header value as text of at most `limit` characters, printable in the sense of `printable`."""
    value = value[: limit * _OCTETS_PER_CHARACTER]
    # Words of one charset are joined before decoding: encoders split characters between words against RFC 2047 5.
    pieces: list[tuple[str, bytes]] = []
    position = 0
    follows_word = False
    for match in _WORD.finditer(value):
        between = value[position : match.start()]
        # RFC 2047 6.2: white space between encoded words is not shown.
        if not follows_word or between.strip():
            pieces.append(("utf-8", between))
            follows_word = False
        # RFC 2231 5: `charset*language`.
        charset = match.group(1).decode("ascii", "replace").partition("*")[0].lower()
        text = _decode_word(match.group(2), match.group(3))
        if follows_word and pieces[-1][0] == charset:
            pieces[-1] = (charset, pieces[-1][1] + text)
        else:
            pieces.append((charset, text))
        follows_word = True
        position = match.end()
    pieces.append(("utf-8", value[position:]))
    return _clean("".join(_text(charset, octets) for charset, octets in pieces), limit)


def printable(value: bytes, limit: int) -> str:
    """`value` as UTF-8 text of at most `limit` characters; control characters are spaces, errors are U+FFFD."""
    return _clean(value[: limit * _OCTETS_PER_CHARACTER].decode("utf-8", "replace"), limit)


def _decode_word(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"qQ":
        return binascii.a2b_qp(text, header=True)
    try:
        return binascii.a2b_base64(text.rstrip(b"=") + b"==")
    except binascii.Error:
        return text


def _text(charset: str, octets: bytes) -> str:
    text = charsets.decoded(octets, charset, "replace")
    return octets.decode("utf-8", "replace") if text is None else text


def _clean(text: str, limit: int) -> str:
    return _UNPRINTABLE.sub(" ", text)[:limit].strip()
