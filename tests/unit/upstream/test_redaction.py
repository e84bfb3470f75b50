"""What a peer quotes of our login does not get past us."""

import pytest

from relayd.upstream.redaction import redacted, spellings, without_jwt
from tests.unit.test_shown import PLANTED, SECRET

# Of longer responses the whole is handed in as a secret of its own; the others are no peer's way of quoting.
QUOTED = ("as it is", "in base64", "in a URL", "in a form", "in xtext", "in JSON")


@pytest.mark.parametrize("where", QUOTED)
def test_a_secret_is_masked_however_it_is_spelt(where: str) -> None:
    text = redacted(f"535 5.7.8 {PLANTED[where]} is wrong", spellings((SECRET,)))
    assert PLANTED[where] not in text and "***" in text and text.startswith("535 5.7.8 ")


def test_of_two_secrets_the_longer_goes_first() -> None:
    assert redacted("ab abc", spellings(("ab", "abc", ""))) == "*** ***"


@pytest.mark.parametrize("before", ["", "assertion=", "assertion%3D", "a.b.c.", "x-"])
def test_a_signed_token_is_masked_wherever_it_stands(before: str) -> None:
    assert without_jwt(f"{before}eyJhbGci.eyJpc3Mi.c2ln, it is") == f"{before}***, it is"


@pytest.mark.parametrize(
    "text", ["eyJ" * 1_000_000, "eyJa." * 600_000 + "!", "eyJ." * 700_000, "a." * 1_000_000, "eyJa.b.c." * 300_000]
)
def test_a_long_answer_that_only_begins_like_tokens_is_done_at_once(text: str) -> None:
    """It would take the square of its length: hours."""
    assert len(without_jwt(text)) <= len(text)


@pytest.mark.parametrize("text", ["eyJ.a.b", "eyJa..b", "eyJa.b", "eyJa.b.", "a.b.c", "...", "relay.example.org"])
def test_what_is_no_token_is_left(text: str) -> None:
    assert without_jwt(text) == text
