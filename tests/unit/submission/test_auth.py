"""SCRAM verifiers, against RFC 7677's own example."""

import hashlib
import hmac
from base64 import b64decode

import pytest

from relayd.submission.auth import make_verifier, matches, new_secret

# RFC 7677 3: user "user", password "pencil".
SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
NONCE = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
AUTH_MESSAGE = b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=" + NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=" + NONCE
CLIENT_PROOF = b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
SERVER_SIGNATURE = b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_the_rfcs_client_proof_is_accepted_by_the_stored_key():
    verifier = make_verifier("pencil", salt=SALT, iterations=4096)
    signature = hmac.digest(verifier.stored_key, AUTH_MESSAGE, "sha256")
    client_key = bytes(a ^ b for a, b in zip(CLIENT_PROOF, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == verifier.stored_key


def test_the_server_key_signs_as_the_rfc_says():
    verifier = make_verifier("pencil", salt=SALT, iterations=4096)
    assert hmac.digest(verifier.server_key, AUTH_MESSAGE, "sha256") == SERVER_SIGNATURE


@pytest.mark.parametrize(("secret", "expected"), [("pencil", True), ("Pencil", False), ("", False), ("pencil ", False)])
def test_only_the_secret_itself_matches(secret: str, expected: bool):
    assert matches(make_verifier("pencil", salt=SALT), secret) is expected


def test_a_secret_that_is_not_ascii_is_utf8():
    assert matches(make_verifier("schlüssel", salt=SALT), "schlüssel")


def test_the_same_secret_under_another_salt_looks_different():
    one, other = (make_verifier("pencil", salt=salt) for salt in (b"a" * 16, b"b" * 16))
    assert one.stored_key != other.stored_key and one.server_key != other.server_key


def test_new_secrets_are_160_bits_without_look_alikes():
    made = {new_secret() for _ in range(200)}
    assert len(made) == 200
    assert {len(secret) for secret in made} == {32}
    assert not set("".join(made)) & set("ilouILOU")
