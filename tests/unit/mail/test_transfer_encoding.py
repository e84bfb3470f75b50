"""Long lines and 8-bit bodies: what is changed, what is refused, and that decoded nothing is."""

import email
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.mail.headers import Prepared, scan
from relayd.mail.transfer_encoding import MAX_LINE_OCTETS, fit, folded, has_long_line

HEADER = b"From: a@b.org\r\nSubject: s\r\n"
LONG = b"word " * 300 + b"end"
LONG_BASE64 = b"QUJD" * 400
UMLAUTS = "grüße ".encode() * 200


def fitted(content: bytes, *, converts: bool = False) -> Prepared:
    found = fit(content, scan(content), converts_eight_bit=converts)
    assert found.scan == scan(found.content)
    assert max(len(line) for line in found.content.split(b"\r\n")) <= MAX_LINE_OCTETS
    assert found.content.count(b"\n") == found.content.count(b"\r\n") == found.content.count(b"\r")
    again = fit(found.content, found.scan, converts_eight_bit=converts)
    assert again == found
    return found


def leaves(content: bytes) -> list[tuple[str, bytes]]:
    """Type and decoded octets of every part that holds no other, as Python's parser sees them."""
    found: list[tuple[str, bytes]] = []
    waiting: list[Message] = [email.message_from_bytes(content)]
    while waiting:
        part = waiting.pop()
        if part.is_multipart():
            waiting += part.get_payload()
        else:
            found.append((part.get_content_type(), part.get_payload(decode=True)))
    return found


def multipart(*parts: bytes, boundary: bytes = b"b", kind: bytes = b"mixed", header: bytes = b"") -> bytes:
    lines = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    start = header + b"Content-Type: multipart/" + kind + b'; boundary="' + boundary + b'"\r\n\r\n'
    return start + lines + b"--" + boundary + b"--\r\n"


SHORT = b"Content-Type: text/plain\r\n\r\nshort \r\n.\r\n"
BODIES = {
    "no MIME fields": b"\r\n" + LONG + b"\r\n",
    "no MIME fields, 8-bit": b"\r\n" + UMLAUTS + b"\r\n",
    "text": b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>" + LONG + b"</p> \r\n.\r\n",
    "latin-1": b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n" + b"\xe9" * 1500 + b"\r\n",
    "binary": b"Content-Type: image/svg+xml\r\nContent-Transfer-Encoding: 8bit\r\n\r\n<svg>" + LONG + b"\r\n\r\n",
    "base64": b"Content-Type: image/png\r\nContent-Transfer-Encoding: BASE64\r\n\r\n" + LONG_BASE64 + b"\r\nQUJD\r\n",
    "quoted-printable": b"Content-Transfer-Encoding: Quoted-Printable\r\nContent-Type: text/plain\r\n\r\n"
    + b"=C3=A9t=C3=A9 =\r\n" + b"=C3=A9t=C3=A9 " * 200 + b"=\r\nend=20\r\n",
    "one of two": multipart(SHORT, b"Content-Type: text/html\r\n\r\n" + LONG),
    "attachment": multipart(SHORT, b"Content-Type: application/json\r\nX: y\r\n\r\n{" + LONG),
    "part without a header": multipart(b"\r\n" + LONG, SHORT),
    "nested": multipart(
        multipart(SHORT, b"content-type: TEXT/HTML\r\n\r\n" + LONG, boundary=b"b1", kind=b"alternative"), SHORT
    ),
    "a boundary that begins as the outer one": multipart(
        multipart(b"\r\n" + LONG, SHORT, boundary=b"bb"), b"\r\n--bbb\r\n" + LONG
    ),
    "message within": multipart(
        SHORT, b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\nReferences:" + b" <a@b>" * 300 + b"\r\n\r\n" + LONG
    ),
    "digest": multipart(b"\r\nSubject: in\r\n\r\n" + LONG, b"\r\n\r\n" + LONG, kind=b"digest"),
    "multipart in a message": multipart(
        b"Content-Type: message/rfc822\r\n\r\n" + multipart(SHORT, b"\r\n" + LONG, boundary=b"c", header=HEADER)
    ),
    "long header of a part": multipart(b"Content-Type: text/plain;\r\n x=1; " + b"y=2; " * 300 + b"\r\n\r\n" + LONG),
    "delivery status": multipart(
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nDiagnostic-Code: smtp; " + LONG,
        kind=b"report",
    ),
    "no end": multipart(SHORT, b"Content-Type: text/plain\r\n\r\n" + LONG).removesuffix(b"--b--\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_only_what_has_long_lines_is_encoded_and_reads_as_before(name: str) -> None:
    content = HEADER + BODIES[name]
    found = fitted(content)
    assert found.content != content
    if name == "delivery status":
        assert found.content.replace(b"\r\n ", b" ") == content
    else:
        assert leaves(found.content) == leaves(content)
    if SHORT in content:
        assert SHORT in found.content
    assert found.content.startswith(HEADER)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"a" * 999, b"text/plain; charset=us-ascii"),
        (UMLAUTS, b"text/plain; charset=utf-8"),
        (b"\xe9" * 999, b"text/plain; charset=unknown-8bit"),
    ],
)
def test_a_body_without_mime_fields_is_given_them(body: bytes, fields: bytes) -> None:
    found = fitted(HEADER + b"\r\n" + body + b"\r\n").content
    header = HEADER + b"MIME-Version: 1.0\r\nContent-Type: " + fields
    assert found.startswith(header + b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (multipart(b"\r\n" + LONG, kind=b"signed"), "protected by multipart/signed"),
        (multipart(multipart(SHORT, b"\r\n" + LONG, boundary=b"c"), kind=b"signed"), "protected by multipart/signed"),
        (multipart(b"\r\n" + LONG, kind=b"encrypted"), "protected by multipart/encrypted"),
        (b"Content-Type: application/pkcs7-mime\r\n\r\n" + LONG_BASE64, "by application/pkcs7-mime"),
        (b"DKIM-Signature: v=1\r\n\r\n" + LONG, "its own DKIM or ARC signature"),
        (b"ARC-Message-Signature: i=1\r\n\r\n" + LONG, "its own DKIM or ARC signature"),
        (
            multipart(b"Content-Type: message/rfc822\r\n\r\nDKIM-Signature: v=1\r\n\r\n" + LONG),
            "its own DKIM or ARC signature",
        ),
        (b"Content-Transfer-Encoding: x-uuencode\r\n\r\n" + LONG, "x-uuencode, which relayd does not know"),
        (b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"a = b" * 300, "is not quoted-printable"),
        (b"Content-Type: multipart/mixed\r\n\r\n" + LONG, "is in multipart/mixed which cannot be encoded"),
        (
            b"Content-Type: multipart/mixed; boundary=c\r\n\r\n" + LONG,
            "in multipart/mixed without the boundaries that it names",
        ),
        (multipart(b"Content-Type: multipart/mixed; boundary=c\r\n\r\n" + LONG), "without the boundaries"),
        (b"Content-Type: message/partial; id=1\r\n\r\n" + LONG, "is in message/partial which cannot be encoded"),
        (multipart(b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n" + LONG), "has 2 Content-Type fields"),
        (multipart(b"Content-Type: text/plain\r\nno field\r\n" + LONG), "has no empty line behind its header"),
        (multipart(b"X-Long: " + b"x" * 1000 + b"\r\n\r\ntext"), r"header line 6 \(X-Long\) has 1,001 octets without"),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    content = HEADER + body + b"\r\n"
    with pytest.raises(ValueError, match=reason) as raised:
        fitted(content)
    assert len(str(raised.value)) < 400 and str(raised.value).isascii()


def test_before_and_after_the_parts_long_lines_are_cut() -> None:
    parts = multipart(SHORT, boundary=b"b")
    head, _, rest = parts.partition(b"\r\n\r\n")
    long = b"x" * 997 + b"--b--" + b"-" * 3000
    content = HEADER + head + b"\r\n\r\n" + long + b"\r\n" + rest + long + b"\r\n"
    found = fitted(content).content
    assert leaves(found) == leaves(content)
    assert found.replace(b"\r\n -", b"-").replace(b"\r\n x", b"x") == content


def test_white_space_behind_a_boundary_is_cut() -> None:
    content = HEADER + multipart(SHORT, SHORT)
    padded = content.replace(b"--b\r\n", b"--b" + b" " * 1500 + b"\r\n").replace(b"--b--", b"--b--" + b"\t" * 1500)
    assert fitted(padded).content == content
    signed = padded.replace(b"mixed", b"signed")
    with pytest.raises(ValueError, match="protected by multipart/signed"):
        fitted(signed)
    long = b"b" * 600
    named = b"Content-Type: multipart/mixed; boundary*0=" + long + b";\r\n boundary*1=" + long + b"\r\n\r\n"
    with pytest.raises(ValueError, match="the boundary at line 6 has over 998 octets"):
        fitted(HEADER + named + b"--" + long * 2 + b"\r\n\r\nx\r\n")


def test_a_message_without_long_lines_stays_as_it_is() -> None:
    for body in (b"\r\n" + b"x" * 998 + b"\r\n", multipart(SHORT, b"\r\n\xff\xfe"), b"\r\n", b""):
        content = HEADER + body
        assert fit(content, scan(content)) == (content, scan(content))


def test_whoever_wants_long_lines_refused_is_told_where_they_are() -> None:
    content = HEADER + b"\r\nshort\r\n" + b"x" * 999 + b"\r\n"
    with pytest.raises(ValueError, match=r"line 5 has 999 octets; 998 are allowed.*--long-lines reencode"):
        fit(content, scan(content), refuses=True)
    short = content.replace(b"x" * 999, b"x" * 998)
    assert fit(short, scan(short), refuses=True).content == short


@pytest.mark.parametrize("name", [*BODIES, "short"])
def test_eight_bit_bodies_become_ascii_where_a_mailbox_wants_it(name: str) -> None:
    body = BODIES.get(name, multipart(SHORT, b"\r\nx"))
    body = body.replace(b"short", "größe".encode()).replace(LONG, UMLAUTS + b"\r\n" + b"\xff\x00"[:1] * 10)
    content = HEADER + body
    found = fitted(content, converts=True)
    if name == "delivery status":
        assert "größe".encode() not in found.content
        return
    assert found.content[found.scan.body_offset :].isascii()
    assert leaves(found.content) == leaves(content)


@pytest.mark.parametrize("kind", [b"signed", b"encrypted"])
def test_a_signed_eight_bit_body_stays_as_it_is(kind: bytes) -> None:
    content = HEADER + multipart(b"\r\ngr\xc3\xbc\xc3\x9fe", kind=kind)
    assert fitted(content, converts=True).content == content
    for odd in (b"Content-Transfer-Encoding: x-own\r\n\r\n", b"Content-Type: multipart/mixed\r\n\r\n"):
        content = HEADER + odd + b"gr\xc3\xbc\xc3\x9fe\r\n"
        assert fitted(content, converts=True).content == content
    content = HEADER + b"DKIM-Signature: v=1\r\n\r\ngr\xc3\xbc\xc3\x9fe\r\n"
    assert fitted(content, converts=True).content == content


@pytest.mark.parametrize(
    "field",
    [
        b"References:" + b" <0123456789@example.com>" * 200,
        b"To: " + b", ".join([b"user@example.com"] * 200),
        b"Subject: " + b"x" * 900 + b" " + b"y" * 900,
        b"Subject:\tx  " + b"word \t " * 300,
        b"X-A: a\r\n" + b" b" * 800 + b"\r\n c",
        b"References: <" + b"x" * 990 + b">",
        b"X-Trailing: a" + b" " * 3000,
        b"X-Blank: a\r\n" + b" " * 3000 + b"\r\n b",
    ],
)
def test_a_long_field_is_folded_at_white_space_only(field: bytes) -> None:
    content = field + b"\r\n" + HEADER + b"\r\nbody\r\n"
    found = fitted(content)
    assert [(each.name, b" ".join(each.value.split())) for each in found.scan.fields] == [
        (each.name, b" ".join(each.value.split())) for each in scan(content).fields
    ]
    if not field.startswith((b"X-Trailing", b"X-Blank")):
        assert [each.value for each in found.scan.fields] == [each.value for each in scan(content).fields]
    assert not any(not line.strip() for line in found.content.split(b"\r\n\r\n")[0].split(b"\r\n"))


@pytest.mark.parametrize(
    ("field", "octets"),
    [
        (b"X-A: " + b"x" * 998, "999"),
        (b"Subject: " + b"x" * 5000, "5,001"),
        (b"X-A: a" + b" " * 1000 + b"b", "1,001"),
        (b"X-A: ok\r\n " + b"x" * 998, "999"),
        (b"References: <a@b> <" + b"x" * 1200 + b"@b>", "1,205"),
    ],
)
def test_a_field_that_cannot_be_folded_is_refused_by_its_line(field: bytes, octets: str) -> None:
    name = field.partition(b":")[0].decode()
    content = HEADER + field + b"\r\n\r\nbody\r\n"
    with pytest.raises(ValueError, match=rf"header line 3 \({name}\) has {octets} octets without white space"):
        fitted(content)


@pytest.mark.parametrize(
    ("content", "is_long"),
    [
        (b"", False),
        (b"x" * 998, False),
        (b"x" * 999, True),
        (b"x" * 998 + b"\r\n", False),
        (b"x" * 999 + b"\r\n", True),
        (b"a\r\n" + b"x" * 997, False),
        (b"a\r\n" + b"x" * 999, True),
        ((b"x" * 998 + b"\r\n") * 50, False),
        ((b"x" * 998 + b"\r\n") * 50 + b"y" * 999 + b"\r\nz", True),
    ],
)
def test_which_line_is_long(content: bytes, is_long: bool) -> None:
    assert has_long_line(content) is is_long
    assert has_long_line(b"x" * 2000 + content + b"x" * 2000, 2000, 2000 + len(content)) is is_long


TEXT = st.lists(
    st.sampled_from([b"x" * 1100, b"= ", b"=20", b"\r\n", b" ", b"\t", b".", b"--b", b"--", b"\xc3\xa9" * 40, b"\xff"])
).map(b"".join)


@given(st.lists(TEXT, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_decoded_every_part_is_what_it_was(texts: list[bytes], is_text: bool, converts: bool) -> None:
    kind = b"Content-Type: " + (b"text/plain; charset=utf-8" if is_text else b"application/x-any") + b"\r\n\r\n"
    parts = [kind + text.replace(b"--b", b"--c") for text in texts]
    content = HEADER + multipart(*parts)
    found = fitted(content, converts=converts)
    assert leaves(found.content) == leaves(content)
    assert not converts or found.content.isascii()
    single = HEADER + kind + texts[0] + b"\r\n"
    assert leaves(fitted(single, converts=converts).content) == leaves(single)


@given(st.lists(st.sampled_from([b" ", b"  ", b"\t", b"a", b"b" * 300, b"c" * 990, b"\r\n "])))
def test_a_folded_field_unfolds_to_what_it_was(pieces: list[bytes]) -> None:
    field = b"X-A: x" + b"".join(pieces) + b"\r\n"
    try:
        found = folded(field, lambda: "it")
    except ValueError:
        assert has_long_line(field)
        return
    assert not has_long_line(found)
    assert found.replace(b"\r\n", b"").split() == field.replace(b"\r\n", b"").split()


def nested(levels: int) -> bytes:
    start = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(levels)
    )
    return start + b"\r\n" + LONG + b"\r\n" + b"".join(b"--b%d--\r\n" % level for level in reversed(range(levels)))


HOSTILE = {
    "ten thousand levels": nested(10_000),
    "ten thousand messages": b"Content-Type: message/rfc822\r\n\r\n" * 10_000 + b"\r\n" + LONG + b"\r\n",
    "many parts": multipart(*[b"\r\n" + LONG] * 5_000),
    "many parts that are all header": multipart(*[b"X: y\r\nZ: y"] * 40_000, b"\r\n" + LONG),
    "many boundaries that are none": multipart(b"\r\n" + b"--\r\n" * 500_000 + LONG),
    "many multiparts without parts": multipart(
        *[b"Content-Type: multipart/mixed; boundary=c%d\r\n\r\nx" % n for n in range(20_000)], b"\r\n" + LONG
    ),
    "many long headers": multipart(*[b"X-A:" + b" y" * 600 + b"\r\n\r\nx"] * 5_000),
    "long lines of white space": b"\r\n" + (b" " * 60_000 + b"\r\n") * 50,
    "equals signs": b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + (b"=3D" * 20_000 + b"\r\n") * 50,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_costs_no_more_than_its_size(name: str) -> None:
    # Quadratic, each of these takes minutes: the run's own time limit sees it.
    fitted(HEADER + HOSTILE[name])


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="message has over 50,000 parts"):
        fitted(HEADER + multipart(*[b""] * 50_000, b"\r\n" + LONG))
    with pytest.raises(ValueError, match="message has over 50,000 parts"):
        fitted(HEADER + b"Content-Type: message/rfc822\r\n\r\n" * 50_001 + b"\r\n" + LONG + b"\r\n")


def test_multiparts_side_by_side_do_not_shadow_each_other() -> None:
    inner = multipart(b"\r\n" + LONG, boundary=b"same")
    content = HEADER + multipart(inner, inner, SHORT)
    assert leaves(fitted(content).content) == leaves(content)
