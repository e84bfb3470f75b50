"""DKIM keys come back as they were made, and the wrong ones are refused without being shown."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from relayd.mail.dkim_key import SigningKey, generate, load_private, public_of
from relayd.mail.dkim_record import Algorithm, record_name, record_value


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_generated_key_loads_again(algorithm: Algorithm) -> None:
    private, public = generate(algorithm)
    assert public_of(load_private(algorithm, private)) == public


def test_the_ed25519_key_of_rfc_8463() -> None:
    seed = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    public = public_of(load_private(Algorithm.ED25519_SHA256, seed))
    assert record_value(Algorithm.ED25519_SHA256, public) == (
        "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    )
    assert record_name("brisbane", "football.example.com") == "brisbane._domainkey.football.example.com"


def test_an_operators_pkcs1_key_loads() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert public_of(load_private(Algorithm.RSA_SHA256, pem)) == public_of(key)


def test_unfit_keys_are_refused_without_being_quoted() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    other = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    rsa_pem, _ = generate(Algorithm.RSA_SHA256)
    for algorithm, private, reason in [
        (Algorithm.RSA_SHA256, b"nonsense", "not an unencrypted private key in PEM for rsa-sha256"),
        (Algorithm.ED25519_SHA256, b"x" * 31, "not an unencrypted private key in PEM for ed25519-sha256"),
        (Algorithm.RSA_SHA256, locked, "not an unencrypted private key"),
        (Algorithm.RSA_SHA256, other, "the private key is not for rsa-sha256"),
        (Algorithm.ED25519_SHA256, rsa_pem, "the private key is not for ed25519-sha256"),
    ]:
        with pytest.raises(ValueError, match=reason) as caught:
            load_private(algorithm, private)
        assert "PRIVATE" not in str(caught.value)


def test_rsa_keys_have_a_size_that_verifiers_take() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=5120)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="an RSA key of 5120 bits; use 1024 to 4096"):
        load_private(Algorithm.RSA_SHA256, pem)


def test_a_signing_key_matches_its_algorithm_and_hides_itself() -> None:
    private_key = load_private(Algorithm.ED25519_SHA256, b"s" * 32)
    with pytest.raises(ValueError, match="is not for rsa-sha256"):
        SigningKey("b.example", "s1", Algorithm.RSA_SHA256, private_key)
    with pytest.raises(ValueError, match="xn--"):
        SigningKey("müller.example", "s1", Algorithm.ED25519_SHA256, private_key)
    assert "private_key" not in repr(SigningKey("b.example", "s1", Algorithm.ED25519_SHA256, private_key))
