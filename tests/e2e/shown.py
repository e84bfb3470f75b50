"""What relayd has let out, and whether a secret is in it, in any of the forms in which it would be carried."""

import json
from base64 import b64encode
from urllib.parse import quote, quote_plus


class Shown:
    """Texts by where they were seen."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def add(self, where: str, text: str | bytes) -> None:
        text = text if isinstance(text, str) else text.decode(errors="replace")
        self._texts[where] = self._texts.get(where, "") + text + "\n"

    def holds(self, where: str, text: str) -> bool:
        return text in self._texts[where]

    def assert_none(self, what: str, canary: bytes) -> None:
        """Not as it is, and not in a form in which SMTP, HTTP, JSON, Python or Postgres would carry it."""
        for where, text in self._texts.items():
            assert not any(form in text for form in forms(canary)), f"{what} is in {where}"


def forms(canary: bytes) -> set[str]:
    """How a secret may look."""
    # In the middle of something longer, base64 has three forms; what its ends share with the neighbours is left out.
    middles = {b64encode(canary[skip:])[: len(canary[skip:]) // 3 * 4 - 4].decode() for skip in range(3)}
    middles |= {middle.replace("+", "-").replace("/", "_") for middle in middles}
    found = {canary.hex(), canary.hex().upper(), _escaped(canary), _xtext(canary), *middles}
    try:
        text = canary.decode()
    except UnicodeDecodeError:
        return found
    return found | {text, quote(text, safe=""), quote_plus(text), json.dumps(text)[1:-1], repr(text)[1:-1]}


def _escaped(octets: bytes) -> str:
    return repr(octets)[2:-1]


def _xtext(octets: bytes) -> str:
    return "".join(chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in octets)
