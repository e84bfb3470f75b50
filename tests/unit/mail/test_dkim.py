"""Signatures that dkimpy's verifier accepts, and that any change a reader could see breaks."""

import base64
import hashlib

import dkim as dkimpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayd.mail.dkim import canonical_body, sign
from relayd.mail.dkim_key import SigningKey, generate, load_private
from relayd.mail.dkim_record import Algorithm, record_strings, record_value
from relayd.mail.headers import prepare, scan
from relayd.mail.transfer_encoding import fit

PLAIN = (
    b"From: A <a@b.example>\r\nTo: c@d.example\r\nSubject: hello\r\n"
    b"Date: Tue, 01 Jul 2025 10:52:37 +0200\r\nMessage-ID: <1@b.example>\r\n\r\nBody\r\n"
)


_RECORDS: dict[bytes, bytes] = {}


def _key(selector: str, algorithm: Algorithm) -> SigningKey:
    private, public = generate(algorithm)
    _RECORDS[f"{selector}._domainkey.b.example.".encode()] = record_value(algorithm, public).encode()
    return SigningKey("b.example", selector, algorithm, load_private(algorithm, private))


KEYS = (_key("rsa1", Algorithm.RSA_SHA256), _key("ed1", Algorithm.ED25519_SHA256))


def _signed(content: bytes) -> bytes:
    signatures = sign(content, scan(content), KEYS, signed_at=1_751_360_000)
    fields = scan(signatures + b"\r\n").fields
    assert [field.name for field in fields] == [b"DKIM-Signature"] * len(KEYS)
    return signatures + content


def _verdicts(message: bytes) -> list[bool]:
    def txt(name: bytes, timeout: int = 5) -> bytes | None:
        return _RECORDS.get(name)

    verdicts = []
    for index in range(len(KEYS)):
        try:
            verdicts.append(bool(dkimpy.DKIM(message).verify(index, dnsfunc=txt)))
        except dkimpy.ValidationError:
            verdicts.append(False)
    return verdicts


ACCEPTED, REJECTED = [True, True], [False, False]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"From: a@b.example\r\n\r\n",
        b"From: a@b.example\r\n",
        b"From: a@b.example\r\n\r\n\r\n\r\n",
        b"From: a@b.example\r\n\r\n \t\r\n\r\n",
        b"From: a@b.example\r\n\r\nno line end",
        b"From: a@b.example\r\n\r\n  lead \t trail \t\r\n\t\r\nx\r\n \r\n\r\n",
        b"From: a@b.example\r\n\r\n" + b"\xff\x80\xc3\xa9 8 bit\r\n",
        b"From: J\xc3\xb6rg <a@b.example>\r\nSubject: \xe9\r\n\r\nx\r\n",
        b"From:a@b.example\r\nSUBJECT:\r\n folded\t\r\n  twice \r\nTo: a,\r\n\tb\r\n\r\nx\r\n",
        b"To: 1\r\nFrom: a@b.example\r\nTo: 2\r\nto: 3\r\nSubject:\r\nsubject: 2\r\n\r\nx\r\n",
        b"From: a@b.example\r\nList-Id: <l>\r\nList-Unsubscribe: <x>\r\nlist-unsubscribe-post: y\r\n\r\nx\r\n",
        b"From: a@b.example\r\nReferences: " + b"\r\n ".join([b"<" + b"r" * 60 + b"@x>"] * 400) + b"\r\n\r\nx\r\n",
        b"DKIM-Signature: v=1; not ours\r\nFrom: a@b.example\r\n\r\nx\r\n",
    ],
)
def test_both_signatures_verify(content: bytes) -> None:
    assert _verdicts(_signed(content)) == ACCEPTED


@pytest.mark.parametrize("converts", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        b"From: a@b.example\r\nReferences:" + b" <0123456789@example.com>" * 200 + b"\r\n\r\nx\r\n",
        b"From: a@b.example\r\nSubject:" + b" \t word" * 300 + b" \t" * 900 + b"\r\n\r\n\xc3\xa9\r\n",
        b"From: a@b.example\r\n\r\n" + b"x \t" * 900 + b"\r\n \r\n\r\n",
        b"From: a@b.example\r\nContent-Type: text/html\r\n\r\n" + b"\xc3\xa9 " * 900 + b"\r\n.\r\n",
        b"From: a@b.example\r\nContent-Type: image/png\r\n\r\n" + b"\x89PNG" * 900,
        b"From: a@b.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + b"x" * 999,
    ],
)
def test_a_message_whose_long_lines_are_made_shorter_verifies(content: bytes, converts: bool) -> None:
    content, found = fit(content, scan(content), converts_eight_bit=converts)
    content, found = prepare(content, found, received=b"Received: r\r\n", message_id="<m@h>", date="d")
    assert found == scan(content) and max(len(line) for line in content.split(b"\r\n")) <= 998
    assert _verdicts(_signed(content)) == ACCEPTED


# dkimpy strips vertical tabs and form feeds from header values too, against RFC 6376 3.4.2.
_part = st.sampled_from([b" ", b"\t", b"a", b"=", b":", b"\xe9", b"\xff", b";", b"b=x"])
_odd = st.lists(_part, max_size=12).map(b"".join)
_folded = st.lists(_odd, min_size=1, max_size=4).map(b"\r\n ".join)
_name = st.sampled_from([b"From", b"to", b"SUBJECT", b"Received", b"Reply-To", b"Content-Type", b"List-Id", b"X-Odd"])
_line = st.one_of(_odd, st.binary(max_size=20).map(lambda line: line.translate(None, b"\r\n\0")))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(_name, _folded), max_size=8), st.lists(_line, max_size=8))
def test_any_message_verifies_as_prepared_and_delivered(fields: list[tuple[bytes, bytes]], lines: list[bytes]) -> None:
    header = b"".join(name + b":" + value + b"\r\n" for name, value in fields)
    content = header + b"\r\n" + b"".join(line + b"\r\n" for line in lines)
    content, found = prepare(content, scan(content), received=b"Received: r\r\n", message_id="<m@h>", date="d")
    assert found == scan(content)
    assert _verdicts(_signed(content)) == ACCEPTED


@pytest.mark.parametrize(
    "added",
    [
        b"From: evil@b.example",
        b"To: evil@b.example",
        b"Cc: evil@b.example",
        b"Subject: evil",
        b"Date: now",
        b"Message-ID: <evil>",
        b"Reply-To: evil@b.example",
        b"Sender: evil@b.example",
        b"In-Reply-To: <evil>",
        b"References: <evil>",
        b"MIME-Version: 1.0",
        b"Content-Type: text/html",
        b"Content-Transfer-Encoding: base64",
    ],
)
def test_a_field_added_anywhere_breaks_both(added: bytes) -> None:
    signed = _signed(PLAIN)
    assert _verdicts(added + b"\r\n" + signed) == REJECTED
    assert _verdicts(signed.replace(b"\r\n\r\n", b"\r\n" + added + b"\r\n\r\n", 1)) == REJECTED


def test_present_list_fields_cannot_be_doubled_and_absent_ones_may_be_added() -> None:
    listed = PLAIN.replace(b"To:", b"List-Unsubscribe: <x>\r\nTo:")
    assert _verdicts(b"List-Unsubscribe: <evil>\r\n" + _signed(listed)) == REJECTED
    assert _verdicts(b"List-Id: <list>\r\n" + _signed(listed)) == ACCEPTED


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"Body\r\n", b"Body!\r\n"), (b"Body\r\n", b"Body\r\nmore\r\n"), (b"Body\r\n", b""), (b"hello", b"hallo")],
)
def test_a_change_breaks_both(old: bytes, new: bytes) -> None:
    assert _verdicts(_signed(PLAIN).replace(old, new)) == REJECTED


def test_what_transport_may_do_breaks_neither() -> None:
    signed = b"Received: hop\r\n" + _signed(PLAIN).replace(b"Body\r\n", b"Body  \r\n\r\n\r\n")
    assert _verdicts(signed.replace(b"Subject: hello", b"subject:\r\n\thello ")) == ACCEPTED


def test_the_fields_fit_their_lines_and_sign_the_whole_body() -> None:
    signatures = sign(PLAIN, scan(PLAIN), KEYS, signed_at=1_751_360_000)
    assert max(map(len, signatures.split(b"\r\n"))) <= 78
    first, second = (field.value.replace(b"\t", b" ") for field in scan(signatures + b"\r\n").fields)
    assert first.startswith(b"v=1; a=rsa-sha256; c=relaxed/relaxed; d=b.example; s=rsa1; t=1751360000;")
    assert second.startswith(b"v=1; a=ed25519-sha256; c=relaxed/relaxed; d=b.example; s=ed1; t=1751360000;")
    assert b"l=" not in first.split(b"bh=")[0]
    assert b"From:From:To:To:" in first
    assert sign(PLAIN, scan(PLAIN), (), signed_at=0) == b""


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        (b"", b""),
        (b"\r\n\r\n", b""),
        (b" \t \r\n\t\r\n", b""),
        (b" ", b""),
        (b"a", b"a\r\n"),
        (b"a \t", b"a\r\n"),
        (b"a\r\n ", b"a\r\n"),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),  # RFC 6376 3.4.5
        (b" " * 1_000_000 + b"\r\n", b""),
        (b"\t " * 500_000 + b"x" + b" " * 1_000_000 + b"\r\n", b" x\r\n"),
        (b"\r\n" * 500_000 + b"x", b"\r\n" * 500_000 + b"x\r\n"),
        ((b" " * 998 + b"\r\n") * 1000 + b".\r\n", b"\r\n" * 1000 + b".\r\n"),
    ],
)
def test_canonical_bodies(body: bytes, canonical: bytes) -> None:
    assert canonical_body(body) == canonical


def test_the_body_hash_of_rfc_8463() -> None:
    body = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
    digest = hashlib.sha256(canonical_body(body)).digest()
    assert base64.b64encode(digest) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="


def test_records_are_split_into_strings_that_join_without_loss() -> None:
    value = record_value(Algorithm.RSA_SHA256, generate(Algorithm.RSA_SHA256)[1])
    strings = record_strings(value)
    assert [len(string) for string in strings] == [255, len(value) - 255] and "".join(strings) == value
    assert record_strings("") == ("",)
