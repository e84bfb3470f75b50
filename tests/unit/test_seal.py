"""Sealed values open for their row and key alone, and no error shows a secret."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.seal import Seal, SealError, new_key, parse_key

OLD, NEW = b"\x01" * 32, b"\x02" * 32
ROW = "email_configurations/0197c0de/smtp_password"


@given(st.binary(max_size=200), st.text(min_size=1, max_size=40).filter(lambda row: row.isprintable()))
def test_what_is_sealed_opens_again(plaintext: bytes, row: str) -> None:
    seal = Seal(NEW)
    sealed = seal.seal(plaintext, row=row)
    assert seal.open(sealed, row=row) == plaintext
    assert sealed != seal.seal(plaintext, row=row)
    assert len(sealed) == len(plaintext) + 33


def test_a_moved_value_does_not_open() -> None:
    seal = Seal(NEW)
    with pytest.raises(SealError, match="moved from another row") as caught:
        seal.open(seal.seal(b"secret", row="a/1/x"), row="a/2/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("index", [1, 4, 5, 16, 17, 22, -1])
def test_no_octet_can_be_altered(index: int) -> None:
    seal = Seal(NEW)
    sealed = bytearray(seal.seal(b"secret", row=ROW))
    sealed[index] ^= 1
    with pytest.raises(SealError, match=r"cannot be opened|is not loaded"):
        seal.open(bytes(sealed), row=ROW)


def test_rotation_opens_old_values_and_seals_with_the_new_key() -> None:
    before, after = Seal(OLD), Seal(NEW, [OLD])
    sealed = before.seal(b"secret", row=ROW)
    assert after.open(sealed, row=ROW) == b"secret"
    assert not after.is_current(sealed)
    assert after.is_current(after.seal(b"secret", row=ROW))


def test_a_missing_key_is_named_by_its_id() -> None:
    sealed = Seal(OLD).seal(b"secret", row=ROW)
    with pytest.raises(SealError, match=f"{ROW} is sealed with key id 72cd6e84, which is not loaded") as caught:
        Seal(NEW).open(sealed, row=ROW)
    assert "loaded: 75877bb4" in str(caught.value)


@pytest.mark.parametrize(
    ("sealed", "reason"), [(b"", "does not hold"), (b"\x01" * 32, "does not hold"), (b"\x02" * 60, "format 2")]
)
def test_what_is_not_sealed_is_told(sealed: bytes, reason: str) -> None:
    with pytest.raises(SealError, match=reason):
        Seal(NEW).open(sealed, row=ROW)


def test_keys_are_made_and_parsed() -> None:
    text = new_key()
    assert len(parse_key(text.encode() + b"\n")) == 32
    assert text != new_key()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b" \n", "is empty"),
        (b"not base64!", "is not base64"),
        (b"\xff\xfe", "is not base64"),
        (b"c2VjcmV0", "is 6 octets in base64, not 32"),
    ],
)
def test_bad_keys_are_refused_with_the_next_step(text: bytes, reason: str) -> None:
    with pytest.raises(SealError, match=reason + ".*; make one with: relayd key new") as caught:
        parse_key(text)
    assert "c2VjcmV0" not in str(caught.value)


def test_a_key_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(SealError, match="16 octets, not 32"):
        Seal(NEW, [b"x" * 16])


def test_a_seal_shows_ids_and_no_key() -> None:
    shown = repr(Seal(NEW, [OLD]))
    assert shown == "Seal(current=75877bb4, older=['72cd6e84'])"
    for key in (OLD, NEW):
        assert key.hex() not in shown and base64.b64encode(key).decode() not in shown
