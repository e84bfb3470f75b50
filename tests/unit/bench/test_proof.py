"""What a message is signed with, as the bench sees it before it measures."""

import base64

import pytest

from bench.message import make_message
from bench.proof import signatures

RSA, ED25519 = base64.b64encode(bytes(256)).decode(), base64.b64encode(bytes(64)).decode()


def field(algorithm: str, value: str, domain: str = "example.com") -> str:
    folded = "\r\n\t ".join(value[start : start + 70] for start in range(0, len(value), 70))
    return f"DKIM-Signature: v=1; a={algorithm};\r\n d={domain}; bh=AAAA;\r\n h=From:To; b={folded}\r\n"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", ()),
        (field("rsa-sha256", RSA), ("RSA-2048",)),
        (field("rsa-sha256", RSA) + field("ed25519-sha256", ED25519), ("Ed25519", "RSA-2048")),
        (field("rsa-sha256", RSA) * 2, ("RSA-2048", "RSA-2048")),
        (field("rsa-sha256", RSA[:172]), ("rsa-sha256 of 172 octets in base64",)),
        (field("rsa-sha256", RSA, "example.net"), ("a signature of example.net",)),
    ],
)
def test_signatures_are_told_by_algorithm_and_length(fields: str, expected: tuple[str, ...]) -> None:
    message = fields + "Received: from app\r\nFrom: app@example.com\r\n\r\nbody\r\n"
    assert signatures(message.encode(), "example.com") == expected


@pytest.mark.parametrize("octets", [1024, 4095, 4096, 102_400])
def test_a_message_is_as_long_on_the_wire_as_was_asked(octets: int) -> None:
    message = make_message("app@example.com", octets)
    assert len(message.replace(b"\n", b"\r\n")) in (octets, octets - 1, octets - 2)
    assert max(map(len, message.split(b"\n"))) <= 76
