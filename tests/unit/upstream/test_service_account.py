"""A service account's key file: what is wrong with one is told, and nothing of it quoted."""

import json

import pytest

from relayd.errors import BadValue
from relayd.upstream.service_account import parse_key

CUT = '{"type": "service_account", "private_key": "canary'
CLIENT = json.dumps({"installed": {"client_id": "x", "client_secret": "canary"}})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CUT, "cut off"),
        ("canary", "not JSON"),
        ("[" * 30_000, "not JSON"),
        ('["canary"]', "no service account's key"),
        (CLIENT, "an OAuth client's"),
        ('{"type": "authorized_user", "refresh_token": "canary"}', "authorized_user"),
        ('{"type": "external_account"}', "workload identity"),
        ('{"type": "canary"}', "its type is another"),
        ('{"type": "service_account", "private_key": "canary"}', "no client_email"),
        ('{"type": "service_account", "client_email": "a@example.com"}', "no private_key"),
        ('{"type": "service_account", "client_email": "a@example.com", "private_key": "canary"}', "damaged"),
    ],
)
def test_a_key_that_cannot_be_used_is_told_without_quoting_it(text: str, told: str) -> None:
    with pytest.raises(BadValue, match=told) as refused:
        parse_key(text)
    assert "canary" not in str(refused.value) + str(refused.value.hint)
