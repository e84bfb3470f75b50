"""Who a message says it is from, read as every other program reads it."""

from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.mail.address import Address
from relayd.mail.author import from_addresses, sole_author, with_address
from relayd.mail.headers import HeaderScan, scan


def _scan(value: str | bytes) -> HeaderScan:
    return scan(b"From: " + (value if isinstance(value, bytes) else value.encode()) + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("a@b.org", "a@b.org"),
        ("<a@b.org>", "a@b.org"),
        ("< a@b.org\t>", "a@b.org"),
        ("A.B+c@B.ORG", "A.B+c@b.org"),
        ("John Doe <a@b.org>", "a@b.org"),
        ("John Q. Public <a@b.org>", "a@b.org"),
        ("John<a@b.org>", "a@b.org"),
        ('"Doe, John <x@y.org>" <a@b.org>', "a@b.org"),
        ('"say \\"hi\\"" <a@b.org>', "a@b.org"),
        ("John (the (real) one \\) here) <a@b.org> (really)", "a@b.org"),
        ("a@b.org (John)", "a@b.org"),
        ("(x)a@b.org(y)", "a@b.org"),
        ("=?utf-8?q?J=C3=B6rg?= <a@b.org>", "a@b.org"),
        ("=?utf-8?b?SsO2cmc=?= =?utf-8?q?_X?= <a@b.org>", "a@b.org"),
        ("Jörg Müller <jörg@müller.example>", "jörg@müller.example"),
        ('"quoted local"@b.org', '"quoted local"@b.org'),
        ('X <"a@evil.org"@b.org>', '"a@evil.org"@b.org'),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("John\r\n\tDoe\r\n <a@b.org>", "a@b.org"),
    ],
)
def test_one_author(value: str, address: str) -> None:
    assert str(sole_author(_scan(value))) == address


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "From holds no address"),
        ("()", "From holds no address"),
        ("John Doe", "malformed From"),
        ("<>", "malformed From"),
        ("a@b.org,", "From holds no address"),
        (",a@b.org", "malformed From"),
        ("Doe, John <a@b.org>", "malformed From"),
        ("a@b.org <c@d.org>", "inside a display name"),
        ("<a@b.org> <c@d.org>", "inside a display name"),
        ("John a@b.org", "inside a display name"),
        ("<a@b.org> John", "malformed From"),
        ("friends: a@b.org;", "group"),
        ("friends:;", "group"),
        ("<@x.org:a@b.org>", "malformed From"),
        ("<@x.org,@y.org:a@b.org>", "malformed From"),
        ("a @b.org", "malformed From"),
        ("a@ b.org", "malformed From"),
        ("a@b .org", "malformed From"),
        ("a(x)@b.org", "malformed From"),
        ("<(x)a@b.org>", "malformed From"),
        ("<a@b.org", "malformed From"),
        ("a@b.org>", "malformed From"),
        ("a@b@c.org", "malformed From"),
        ('"unclosed <a@b.org>', "malformed From"),
        ("(unclosed <a@b.org>", "malformed From"),
        ("a@b.org)", "malformed From"),
        ("[x] <a@b.org>", "malformed From"),
        ('a@b.org"x"', "malformed From"),
        ("a\x01@b.org", "malformed From"),
        ("a..b@b.org", "malformed local part"),
        ("a@b..org", "malformed domain"),
        ("=?utf-8?q?a?=@b.org", "encoded word"),
        (b"J\xf6rg <a@b.org>", "neither ASCII nor UTF-8"),
        ("x" * 9000, "over 8192 octets"),
        ("a@b.org, C <c@d.org>", "From names 2 mailboxes; exactly one is supported"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(value: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        sole_author(_scan(value))


def test_the_number_of_from_fields_is_told() -> None:
    with pytest.raises(ValueError, match="message has no From field"):
        sole_author(scan(b"Sender: a@b.org\r\n\r\nFrom: a@b.org\r\n"))
    with pytest.raises(ValueError, match="message has 2 From fields; exactly one is allowed"):
        sole_author(scan(b"From: a@b.org\r\nFROM: a@b.org\r\n\r\n"))


def test_all_authors_are_listed() -> None:
    assert [str(address) for address in from_addresses(_scan('A <a@b.org>, "B, C" <c@d.org>,e@f.org'))] == [
        "a@b.org",
        "c@d.org",
        "e@f.org",
    ]


_PARTS = [*'<>()@,:;"\\[]. \tab', "a@b.org", "<a@b.org>", "é", "=?", '"q"', " "]


@given(st.lists(st.sampled_from(_PARTS), max_size=12))
def test_any_text_is_refused_or_read_as_the_standard_library_reads_it(parts: list[str]) -> None:
    value = "".join(parts)
    try:
        addresses = from_addresses(_scan(value))
    except ValueError:
        return
    assert [str(address) for address in addresses] == [address for _, address in getaddresses([value.strip()])]


@pytest.mark.parametrize(
    ("value", "rewritten"),
    [
        ("a@b.org", "new@x.org"),
        ("<a@b.org>", "<new@x.org>"),
        ("John Q. Public <a@b.org>", "John Q. Public <new@x.org>"),
        ('"a@b.org" <a@b.org> (a@b.org)', '"a@b.org" <new@x.org> (a@b.org)'),
        ("(a@b.org) a@b.org (John)", "(a@b.org) new@x.org (John)"),
        ("=?utf-8?q?J=C3=B6rg?= < a@b.org >", "=?utf-8?q?J=C3=B6rg?= < new@x.org >"),
        ("Jörg <jörg@müller.example>", "Jörg <new@x.org>"),
        ('X <"a@evil.org"@b.org>', "X <new@x.org>"),
    ],
)
def test_another_address_leaves_the_name_as_it_is(value: str, rewritten: str) -> None:
    found = with_address(value.encode(), Address.parse("new@x.org"))
    assert found.decode() == rewritten
    assert sole_author(_scan(found)) == Address.parse("new@x.org")
