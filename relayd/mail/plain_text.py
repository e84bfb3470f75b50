"""What a reader sees of a text part: its charset undone, HTML taken away, within a cap. Linear time, never raises."""

import html
import re

from relayd.mail import charsets
from relayd.mail.mime_parts import Part

MAX_CHARACTERS = 100_000
MAX_HTML_CHARACTERS = 200_000

# Names that mail is seen with, and what Python knows the same or more by.
_CHARSETS = {"gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "ks_c_5601-1987": "cp949", "euc-kr": "cp949",
             "shift_jis": "cp932", "x-sjis": "cp932", "us-ascii": "utf-8", "ascii": "utf-8", "unknown-8bit": "utf-8",
             "iso-8859-8-i": "iso-8859-8"}  # fmt: skip
_TAG_THAT_ENDS_A_LINE = re.compile(
    r"<\s{0,3}/?\s{0,3}(?:br|p|div|tr|li|ul|ol|h[1-6]|table|blockquote|pre|hr|title)\b[^<>]*>", re.IGNORECASE
)
_TAG_THAT_ENDS_A_WORD = re.compile(r"</?\s{0,3}(?:td|th|dt|dd|option)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[a-zA-Z/!?][^<>]*>")
_UNSEEN = ("style", "script", "head")
_BLANKS = re.compile(r"[ \t\xa0\u3000]+")
_FORMAT = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ud800-\udfff]")


def text_of(part: Part) -> str:
    """The text of a text/* part, or of any other whose octets are text."""
    octets = part.content[: 4 * MAX_CHARACTERS]
    text = decoded(octets, part.parameters.get("charset", ""))
    if part.content_type == "text/html" or (part.content_type != "text/plain" and "<html" in text[:2000].lower()):
        text = from_html(text[:MAX_HTML_CHARACTERS])
    return _FORMAT.sub("", text)[:MAX_CHARACTERS]


def decoded(octets: bytes, charset: str) -> str:
    """In the charset given, or in what it must be instead."""
    name = charset.strip("'\" ").lower()
    if name.startswith("iso-2022-") or b"\x1b$" in octets[:20000]:
        return charsets.decoded(octets, name if name.startswith("iso-2022-") else "iso-2022-jp", "replace") or ""
    # UTF-8 says so by itself; whatever was announced is wrong then.
    for candidate in ("utf-8", _CHARSETS.get(name, name)):
        if candidate and (text := charsets.decoded(octets, candidate, "strict")) is not None:
            return text
    return charsets.decoded(octets, _CHARSETS.get(name, name) or "cp1252", "replace") or octets.decode("latin-1")


def from_html(text: str) -> str:
    """The words of a page, its blocks on lines of their own."""
    for name in _UNSEEN:
        text = _without(text, name)
    text = _TAG_THAT_ENDS_A_LINE.sub("\n", text.replace("\n", " "))
    text = _TAG_THAT_ENDS_A_WORD.sub(" ", text)
    text = html.unescape(_TAG.sub("", text))
    return "\n".join(_BLANKS.sub(" ", line).strip() for line in text.split("\n"))


def _without(text: str, name: str) -> str:
    """`text` without the elements of that name."""
    low = text.lower()
    kept, position = [], 0
    if len(low) != len(text):
        return text  # a letter whose small form is longer: positions would not fit
    while (begin := low.find(f"<{name}", position)) >= 0:
        end = low.find(f"</{name}", begin)
        if end < 0:
            break
        kept.append(text[position:begin])
        position = end + len(name) + 2
    return "".join(kept) + text[position:]
