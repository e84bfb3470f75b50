"""What an app does: hand in a message."""

import smtplib

from tests.e2e.house import House


def send(
    house: House, recipients: list[str], *, sender: str = "app@example.com", text: str = "Hello.", fields: str = ""
) -> str:
    """One message; the queue id that the 250 carries. `fields`: more of its header, each with its line end."""
    with smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30) as client:
        client.ehlo("app.example.com")
        assert client.mail(sender)[0] == 250
        for recipient in recipients:
            assert client.rcpt(recipient)[0] == 250
        content = f"From: {sender}\r\nTo: x@example.net\r\nSubject: Test\r\n{fields}\r\n{text}\r\n"
        code, reply = client.data(content.encode())
        assert code == 250, reply
        # What follows a comma says when it leaves.
        return reply.decode().partition("queued as ")[2].partition(",")[0]
