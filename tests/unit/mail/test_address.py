"""Which spellings of an address are the same sender, and which only look like it."""

import re

import pytest

from relayd.mail.address import Address, is_host, key_of, spellings


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
        ("jo\u0308rg@example.com", "j\u00f6rg@example.com"),
        ("JO\u0308RG@example.com", "j\u00f6rg@example.com"),
        ("\u1112\u1161\u11ab@example.com", "\ud55c@example.com"),
        ("e\u0301le\u0300ve@bu\u0308cher.example", "\u00e9l\u00e8ve@xn--bcher-kva.example"),
        ('"jo\u0308rg"@example.com', "j\u00f6rg@example.com"),
        ("a..b@example.com", '"a..b"@example.com'),
        ('"a\\..b"@example.com', '"a..b"@example.com'),
        ("A.@example.com", '"a."@example.com'),
        (".a@example.com", '".a"@example.com'),
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
        ("mail.example.com", "example.com"),
    ],
)
def test_a_domain_that_looks_like_another_is_not_it(alike: str, other: str):
    assert Address.parse(f"a@{alike}").ascii_domain != other


@pytest.mark.parametrize("text", ["a@b.example", '"a@b"@c.example', "j\u00f6rg@stra\u00dfe.example", "a@[192.0.2.1]"])
def test_what_was_stored_is_what_was_parsed(text: str) -> None:
    assert Address.stored(str(Address.parse(text))) == Address.parse(text)


@pytest.mark.parametrize(
    "text", ["a@xn--bcher-kva.example", "j\u00f6@example.com", "jo\u0308@bu\u0308cher.example", '"a..b"@docomo.test']
)
def test_stored_mail_is_found_in_whatever_form_it_keeps_an_address(text: str) -> None:
    forms = spellings(Address.parse(text).key)
    assert str(Address.parse(text)).lower() in forms and len(forms) <= 6
    assert {key_of(form) for form in forms} == {key_of(text)}


def test_an_ascii_address_has_one_form() -> None:
    assert spellings("a.b@example.com") == ["a.b@example.com"]
    assert spellings("@example.com") == ["@example.com"]
    assert spellings("@m\u00fcller.de") == ["@mu\u0308ller.de", "@m\u00fcller.de", "@xn--mller-kva.de"]


def test_a_local_part_may_be_longer_than_64_octets() -> None:
    local_part = "reply+" + "a" * 200
    assert str(Address.parse(f"{local_part}@b.example")) == f"{local_part}@b.example"
    assert Address.parse(f"{'a' * 244}@b.example").local_part == "a" * 244


@pytest.mark.parametrize(
    "literal", ["[192.0.2.1]", "[0.0.0.0]", "[IPv6:::1]", "[ipv6:2001:db8::1]", "[IPv6:::ffff:192.0.2.1]"]
)
def test_an_address_literal_is_an_ip_address(literal: str) -> None:
    assert Address.parse(f"u@{literal}").domain == literal and is_host(literal)


@pytest.mark.parametrize(
    "literal",
    [
        "[300.1.1.1]",
        "[1.2.3]",
        "[IPv6:a1:::b4]",
        "[::1]",
        "[IPv6:::1%lo]",
        "[IPv6:1.2.3.4]",
        "[x400:y]",
        "[]",
        "[1.2.3.4",
    ],
)
def test_an_address_literal_that_is_none_is_refused(literal: str) -> None:
    with pytest.raises(ValueError, match=r"no IP address; write \[192\.0\.2\.1\] or \[IPv6:2001:db8::1\]"):
        Address.parse(f"u@{literal}")
    assert not is_host(literal)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "address has no domain; write name@example.com"),
        ("a@", "malformed domain: it is empty"),
        ("@b.example", "malformed local part: it is empty"),
        ("a@b.example,", "malformed domain: it holds a comma"),
        ("a@b.example,c@d.example", "malformed local part: it holds a comma"),
        ("a@b.example;", "malformed domain: it holds a semicolon"),
        ("'a@b.example'", "malformed domain: it holds a single quote"),
        ("a b@c.example", "malformed local part: it holds a space"),
        ("a@b@c.example", "malformed local part: it holds a second @"),
        ('a"b@c.example', "malformed local part: it holds a stray double quote"),
        ("a@b..example", "malformed domain: a dot begins or ends it, or follows another dot"),
        ("a@b.example.", "malformed domain: a dot begins or ends it, or follows another dot"),
        ("a@-b.example", "malformed domain: a name in it begins or ends with a hyphen or is over 63 characters long"),
        ("a\tb@c.example", "address holds a control character"),
        ("a\u0085@c.example", "address holds a control character"),
        ("a\udcff@c.example", "address is not UTF-8"),
        ("a" * 255 + "@c.example", "address too long; it may have 254 octets"),
    ],
)
def test_a_refused_address_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        Address.parse(text)


UNSEEN = [0x200B, 0x2028, 0x2029, 0x00AD, 0x200D, 0x2060, 0xFEFF, 0x202E, 0x034F, 0x115F, 0x3164, 0xFFA0, 0xFE0F,
          0xE0061, 0x180E, 0x00A0, 0x3000, 0xE000]  # fmt: skip


@pytest.mark.parametrize("code", UNSEEN)
@pytest.mark.parametrize("domain", ["exam{}ple.com", "example{}.com", "ü.exam{}ple.com"])
def test_a_domain_with_a_character_that_nobody_sees_is_refused(code: int, domain: str) -> None:
    with pytest.raises(ValueError, match=f"U\\+{code:04X}; take it out|line separator"):
        Address.parse("a@" + domain.format(chr(code)))


@pytest.mark.parametrize(
    "domain",
    ["192.0.2.1", "127.1", "2130706433", "0x7f000001", "0x7F.0.0.1", "017700000001", "0177.0.0.0x1", "0x", "a.0x0",
     "example.123", "１９２.0.2.１"],
)  # fmt: skip
def test_an_ip_address_without_brackets_is_refused(domain: str) -> None:
    with pytest.raises(ValueError, match=r"in brackets, as \[192\.0\.2\.1\]"):
        Address.parse(f"a@{domain}")


@pytest.mark.parametrize(
    "domain",
    ["[192.0.2.1]", "1.example", "0x7f.example", "163.com", "x1", "bücher.example", "例え.テスト", "münchen.de",
     "xn--e1afmkfd.xn--p1ai", "0xg.a0x"],
)  # fmt: skip
def test_a_domain_that_only_resembles_one_is_taken(domain: str) -> None:
    assert Address.parse(f"a@{domain}").domain == domain


def test_a_line_separator_is_refused_in_a_local_part_too() -> None:
    with pytest.raises(ValueError, match="line separator"):
        Address.parse("a\u2028b@example.com")
    assert Address.parse("❤️@example.com").local_part == "❤️", "joiners and variation marks have a meaning there"
