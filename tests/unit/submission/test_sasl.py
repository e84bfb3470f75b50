"""PLAIN and LOGIN, decoded."""

from base64 import b64encode

import pytest

from relayd.submission.sasl import ABORTED, FAILED, MALFORMED, Credentials, claim, decode, decode_plain


def plain(*parts: str) -> str:
    return b64encode("\0".join(parts).encode()).decode()


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (plain("", "app", "sesame"), Credentials("app", "sesame")),
        (plain("app", "app", "sesame"), Credentials("app", "sesame")),
        (plain("", "büro", "schlüssel"), Credentials("büro", "schlüssel")),
        (plain("root", "app", "sesame"), FAILED),
        (plain("", "app"), MALFORMED),
        (plain("", "app", "sesame", "more"), MALFORMED),
        (plain("", "", "sesame"), MALFORMED),
        (plain("", "app", ""), MALFORMED),
        (b64encode(b"\0app\0\xff").decode(), MALFORMED),
        ("not base64!", MALFORMED),
        ("=", MALFORMED),
        ("*", ABORTED),
    ],
)
def test_plain(response: str, expected: object):
    assert decode_plain(response) == expected


def test_an_equals_sign_is_an_empty_response():
    assert decode("=") == ""


def test_a_nul_in_a_login_never_reaches_the_database():
    assert claim("a\0b", "secret") == MALFORMED


def test_a_secret_is_not_shown_by_repr():
    assert "sesame" not in repr(Credentials("app", "sesame"))
