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
        ("a@b.org <a@b.org>", "a@b.org"),
        ("A@B.ORG <a@b.org>", "a@b.org"),
        ("a@b.org (shop) <a@b.org>", "a@b.org"),
        ("a@bücher.example <a@xn--bcher-kva.example>", "a@xn--bcher-kva.example"),
        ('"a"@b.org <a@b.org>', "a@b.org"),
        ("jo\u0308@b.org <j\u00f6@b.org>", "j\u00f6@b.org"),
        ("a@b.org<a@b.org>", "a@b.org"),
        ('"a@b.org" <a@b.org>', "a@b.org"),
        (b"J\xf6rg <a@b.org>", "a@b.org"),
        (b'"Caf\xe9, Z\xfcrich" <a@b.org>', "a@b.org"),
        (b"\xd0\xee\xf1\xf1 <a@b.org>", "a@b.org"),
        (b"a@b.org (J\xf6rg)", "a@b.org"),
        (b"\xff\xfe <j\xc3\xb6rg@b.org>", "j\u00f6rg@b.org"),
        ('"a..b"@b.org', '"a..b"@b.org'),
        (f"X <{'n' * 100}@b.org>", f"{'n' * 100}@b.org"),
    ],
)
def test_one_author(value: str | bytes, address: str) -> None:
    assert str(sole_author(_scan(value))) == address


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "holds no address; write From: name@example.com"),
        ("()", "holds no address; write From: name@example.com"),
        ("John Doe", "a name but no address; write From: Name <name@example.com>"),
        ("<>", "nothing between < and >"),
        ("a@b.org,", "a stray comma"),
        (",a@b.org", "a stray comma"),
        ("a@b.org,,c@d.org", "a stray comma"),
        ("Doe, John <a@b.org>", 'a comma in its display name; put .* in double quotes, as in From: "Doe, John" <'),
        ("Smith, Wesson & Co <a@b.org>", "a comma in its display name"),
        ("a@b.org <c@d.org>", "an address inside its display name; put"),
        ("a@b.org <a@d.org>", "an address inside its display name; put"),
        ("a@b.org <b@b.org>", "an address inside its display name; put"),
        ("a@b.org a@b.org <a@b.org>", "an address inside its display name; put"),
        ("John a@b.org <a@b.org>", "an address inside its display name; put"),
        ("<a@b.org> <c@d.org>", "two addresses in < >; write one"),
        ("<a@b.org> <a@b.org>", "two addresses in < >; write one"),
        ("'a@b.org' <a@b.org>", "an address in single quotes; use double quotes"),
        ("'x@y.org' <a@b.org>", "an address in single quotes; use double quotes"),
        ("John a@b.org", "an address behind other text; write From: Name <name@example.com>"),
        ("<a@b.org> John", "text after the address; write From: Name <name@example.com>"),
        ("friends: a@b.org;", "a group; write one address"),
        ("friends:;", "a group; write one address"),
        ("undisclosed-recipients:;", "a group; write one address"),
        ("Sales: Europe <a@b.org>", "a colon in its display name; put"),
        ("a@b.org; c@d.org", "a semicolon; write one address"),
        ("a@b.org;", "a semicolon; write one address"),
        ("<@x.org:a@b.org>", "a source route; write <name@example.com>"),
        ("<@x.org,@y.org:a@b.org>", "a source route; write <name@example.com>"),
        ("a @b.org", "an @ without text on both sides"),
        ("a@ b.org", "an @ without text on both sides"),
        ("a@b .org", "text after the address"),
        ("a(x)@b.org", "an @ without text on both sides"),
        ("Jo @ Work <a@b.org>", "has @ outside double quotes; put"),
        ("<(x)a@b.org>", "From: malformed local part: it holds \\("),
        ("<a b@b.org>", "From: malformed local part: it holds a space"),
        ("<a@b.org,>", "From: malformed domain: it holds a comma"),
        ("<a@b.org", "a < without its >"),
        ("John <a@b.org", "a < without its >"),
        ("a@b.org>", "a > without its <"),
        ("a@b@c.org", "an @ without text on both sides"),
        ('"unclosed <a@b.org>', "a double quote that is not closed"),
        ("(unclosed <a@b.org>", "a \\( without its \\)"),
        ("a@b.org)", "a \\) without its \\("),
        ("[x] <a@b.org>", "has \\[ outside double quotes; put"),
        ("[Shop] Orders <a@b.org>", "has \\[ outside double quotes; put"),
        ("ACME\\Bot <a@b.org>", r"has \\ outside double quotes; put"),
        ('a@b.org"x"', "text after the address"),
        ("a\x01@b.org", "a control character"),
        ("a..b@b.org", 'misplaced dots; put double quotes around "a..b"'),
        ("X <a.@b.org>", 'misplaced dots; put double quotes around "a."'),
        ("a@b..org", "From: malformed domain: a dot"),
        ("a@[300.1.1.1]", "From: malformed domain: no IP address; write"),
        ("=?utf-8?q?a?=@b.org", "an encoded word as an address; encode only the display name"),
        ("=?utf-8?q?a=40b.org?=", "an encoded word but no address; write the address unencoded"),
        (b"J\xf6rg <j\xf6rg@b.org>", "From: address is not UTF-8"),
        (b"a@b\xf6.org", "From: address is not UTF-8"),
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
    # `a@b.org <a@b.org>` is two to it, and both are the author.
    assert {str(address) for address in addresses} == {address for _, address in getaddresses([value.strip()])}


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
        ("a@b.org <a@b.org>", "new@x.org <new@x.org>"),
    ],
)
def test_another_address_leaves_the_name_as_it_is(value: str, rewritten: str) -> None:
    found = with_address(value.encode(), Address.parse("new@x.org"))
    assert found.decode() == rewritten
    assert sole_author(_scan(found)) == Address.parse("new@x.org")


@pytest.mark.parametrize("name", [b"J\xf6rg", b'"Caf\xe9"', b"\x83\x5e\xff", b"\xff\xfe", b"J\xc3\xb6rg \xf6"])
def test_another_address_leaves_an_undecodable_name_as_it_is(name: bytes) -> None:
    found = with_address(name + b" <a@b.org>", Address.parse("new@x.org"))
    assert found == name + b" <new@x.org>"
