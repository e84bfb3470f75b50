"""Which spellings of an address are the same sender, and which only look like it."""

import pytest

from relayd.mail.address import Address


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("App@Example.COM", "app@example.com"),
        ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
        ("a@bu\u0308cher.example", "a@xn--bcher-kva.example"),
        ("a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"),
        ('"app"@example.com', "app@example.com"),
        ('"\\a\\p\\p"@example.com', "app@example.com"),
        ('"two words"@example.com', '"two words"@example.com'),
        ('"a@b"@example.com', '"a@b"@example.com'),
    ],
)
def test_spellings_of_one_sender_have_one_key(text: str, key: str):
    assert Address.parse(text).key == key


@pytest.mark.parametrize(
    ("alike", "other"),
    [
        ("straße.example", "strasse.example"),  # two domains, of two owners (RFC 5891); IDNA2003 makes them one
        ("ｅxample.com", "example.com"),
        ("example。com", "example.com"),
        ("example.com\u200b", "example.com"),
        ("exam\u00adple.com", "example.com"),
        ("mail.example.com", "example.com"),
    ],
)
def test_a_domain_that_looks_like_another_is_not_it(alike: str, other: str):
    assert Address.parse(f"a@{alike}").ascii_domain != other


@pytest.mark.parametrize("text", ["a@b.example", '"a@b"@c.example', "j\u00f6rg@stra\u00dfe.example", "a@[192.0.2.1]"])
def test_what_was_stored_is_what_was_parsed(text: str) -> None:
    assert Address.stored(str(Address.parse(text))) == Address.parse(text)
