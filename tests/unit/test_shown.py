"""The search for leaked secrets finds what is planted."""

import json
from base64 import b64encode
from urllib.parse import quote, quote_plus

import pytest

from tests.e2e.shown import Shown

SECRET = "canary p+a/ss=é'w\"ord%"
OCTETS = SECRET.encode()
PLANTED = {
    "as it is": SECRET,
    "in base64": b64encode(OCTETS).decode(),
    "in a PLAIN response": b64encode(b"\0user\0" + OCTETS).decode(),
    "in a longer one": b64encode(b"\0user12\0" + OCTETS + b"!").decode(),
    "in an XOAUTH2 response": b64encode(b"user=u\x01auth=Bearer " + OCTETS + b"\x01\x01").decode(),
    "in hex": OCTETS.hex(),
    "in a URL": quote(SECRET, safe=""),
    "in a form": quote_plus(SECRET),
    "in xtext": "canary+20p+2Ba/ss+3D+C3+A9'w\"ord%",
    "in JSON": json.dumps({"password": SECRET}),
    "in a repr": repr({"password": SECRET}),
    "in the repr of octets": repr(OCTETS),
}


@pytest.mark.parametrize("where", PLANTED)
def test_a_planted_secret_is_found(where: str) -> None:
    shown = Shown()
    shown.add("somewhere", f"2026 event=x text={PLANTED[where]} more")
    with pytest.raises(AssertionError, match="the password is in somewhere"):
        shown.assert_none("the password", OCTETS)


def test_what_holds_no_secret_is_let_pass() -> None:
    shown = Shown()
    shown.add("somewhere", "canary pass word")
    shown.assert_none("the password", OCTETS)
