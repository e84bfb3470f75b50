"""The DKIM keys of a new domain: RSA for every verifier there is, Ed25519 for those that know it (RFC 8463)."""

import secrets
from datetime import datetime

from relayd.mail.dkim_key import generate
from relayd.mail.dkim_record import Algorithm, record_value
from relayd.seal import Seal
from relayd.store.directory import dkim_key_row
from relayd.store.domains import NewKey
from relayd.store.ids import new_id

_LETTERS = {Algorithm.RSA_SHA256: "r", Algorithm.ED25519_SHA256: "e"}


def make_keys(seal: Seal, now: datetime) -> tuple[NewKey, ...]:
    """An RSA-2048 and an Ed25519 key, sealed. Takes a tenth of a second and more: call it in a thread."""
    return tuple(_make_key(seal, now, algorithm) for algorithm in _LETTERS)


def _make_key(seal: Seal, now: datetime, algorithm: Algorithm) -> NewKey:
    key_id = new_id()
    private, public = generate(algorithm)
    return NewKey(
        id=key_id,
        selector=_selector(algorithm, now),
        algorithm=algorithm,
        record_value=record_value(algorithm, public),
        private_key_sealed=seal.seal(private, row=dkim_key_row(key_id)),
    )


def _selector(algorithm: Algorithm, now: datetime) -> str:
    # Never one that the domain has used: resolvers still hold the old record when it is removed and added again.
    return f"relayd-{_LETTERS[algorithm]}{now:%Y%m}-{secrets.token_hex(3)}"
