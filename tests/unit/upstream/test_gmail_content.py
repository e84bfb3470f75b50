"""The header that Gmail's API sends by."""

import pytest

from relayd.upstream.gmail_content import complete
from tests.peers.mail import transmission

CONTENT = b"From: a@a.test\r\nTo: named@xn--bcher-kva.example\r\n\r\nhello\r\n"


@pytest.mark.parametrize(
    ("hidden", "written"),
    [
        ("jo@b.test", b"jo@b.test"),
        ("jo@b\u00fccher.example", b"jo@xn--bcher-kva.example"),
        ("Jo@\u4f8b\u3048.test", b"Jo@xn--r8jz45g.test"),
        ("j\u00f6rg@b.test", "j\u00f6rg@b.test".encode()),
        ("j\u00f6rg@b\u00fccher.example", "j\u00f6rg@b\u00fccher.example".encode()),
    ],
)
async def test_a_hidden_recipient_is_in_ascii_unless_its_local_part_is_not(hidden: str, written: bytes) -> None:
    async def others(queue_id: object) -> tuple[()]:
        return ()

    given = transmission("named@b\u00fccher.example", hidden, content=CONTENT)
    content = await complete(given, "mark", others)
    assert content == b"X-Relayd-Attempt: mark\r\nBcc: " + written + b"\r\n" + CONTENT
