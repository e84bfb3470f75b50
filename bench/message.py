"""The message that is sent: a header as an app writes it, and a body that does not compress.

Lines of one letter would be stored by Postgres in a twentieth of their size, which no real attachment is.
"""

import base64
import random

LINE_OCTETS = 78  # with CRLF


def make_message(sender: str, octets: int) -> bytes:
    """`octets` long on the wire (CRLF counted), with LF line ends, as smtp-source reads it."""
    header = (
        f"From: {sender}\n"
        "To: someone@example.net\n"
        "Subject: Your order has been shipped\n"
        "Date: Mon, 01 Jun 2026 12:00:00 +0000\n"
        "Message-ID: <bench@example.com>\n"
        "MIME-Version: 1.0\n"
        "Content-Type: application/octet-stream\n"
        "Content-Transfer-Encoding: base64\n"
        "\n"
    )
    left = octets - len(header) - header.count("\n")
    # The same for every run and system.
    text = base64.b64encode(random.Random(octets).randbytes(octets)).decode()
    lines = []
    while left > 2:
        width = min(LINE_OCTETS, left) - 2
        lines.append(text[:width] + "\n")
        text, left = text[width:], left - width - 2
    return (header + "".join(lines)).encode()
