"""Reverse-paths that say what they were used for."""

import os
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from relayd.mail.address import Address
from relayd.mail.return_path import made_for, subject_of

KEY = os.urandom(32)


@given(st.uuids())
def test_what_was_made_is_recognised_in_any_case(subject: UUID) -> None:
    address = made_for(subject, "bounces.example.com", KEY)
    assert Address.parse(str(address)) == address and len(address.local_part) <= 64
    assert subject_of(address.local_part, [KEY]) == subject_of(address.local_part.upper(), [KEY]) == subject


def test_an_older_key_still_opens_and_another_does_not() -> None:

    subject = uuid4()
    local_part = made_for(subject, "bounces.example.com", KEY).local_part
    assert subject_of(local_part, [os.urandom(32), KEY]) == subject
    assert subject_of(local_part, [os.urandom(32)]) is None


@given(st.text(max_size=60))
def test_nothing_else_is_recognised(text: str) -> None:
    assert subject_of(text, [KEY]) is None and subject_of(f"b+{text}", [KEY]) is None


def test_a_changed_letter_is_not() -> None:

    local_part = made_for(uuid4(), "bounces.example.com", KEY).local_part
    for index in range(2, len(local_part)):
        letter = "a" if local_part[index] != "a" else "b"
        changed = local_part[:index] + letter + local_part[index + 1 :]
        # The last letter holds padding alone, so that some of its changes say the same.
        assert subject_of(changed, [KEY]) is None or index == len(local_part) - 1
