"""What a peer quotes of our login does not get past us."""

import pytest

from relayd.upstream.redaction import redacted, spellings
from tests.unit.test_shown import PLANTED, SECRET

# Of longer responses the whole is handed in as a secret of its own; the others are no peer's way of quoting.
QUOTED = ("as it is", "in base64", "in a URL", "in a form", "in xtext", "in JSON")


@pytest.mark.parametrize("where", QUOTED)
def test_a_secret_is_masked_however_it_is_spelt(where: str) -> None:
    text = redacted(f"535 5.7.8 {PLANTED[where]} is wrong", spellings((SECRET,)))
    assert PLANTED[where] not in text and "***" in text and text.startswith("535 5.7.8 ")


def test_of_two_secrets_the_longer_goes_first() -> None:
    assert redacted("ab abc", spellings(("ab", "abc", ""))) == "*** ***"
