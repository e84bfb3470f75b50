"""Reload a node by SIGHUP, and see which settings it serves with."""

import signal
import smtplib
import ssl
from typing import Any

from tests.e2e.house import START_SECONDS, House, wait_until

NEW_SIZE = 54_321


def reload(house: House, **submission: Any) -> None:
    """SIGHUP after these changes, and wait until the daemon says that it is ready again."""
    house.settings["submission"] |= submission
    house.write_config()
    hang_up(house)


def hang_up(house: House) -> None:
    assert house.process
    house.process.send_signal(signal.SIGHUP)
    for told in ("RELOADING=1", "READY=1"):
        assert house.notifications.wait_for(told, START_SECONDS, house.process), house.log_text()


def wait_for_the_end_of(workers: list[int], house: House) -> None:
    """Until they are gone, old workers too may answer."""
    wait_until(lambda: not set(workers) & set(house.worker_pids()), what="the old workers' end")


def greeting(house: House) -> tuple[str, bytes | None]:
    """The SIZE that is offered on a new connection, and the certificate, if there is one."""
    with smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30) as client:
        client.ehlo("app.example.com")
        certificate = None
        if client.has_extn("starttls"):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            client.starttls(context=context)
            assert isinstance(client.sock, ssl.SSLSocket)
            certificate = client.sock.getpeercert(binary_form=True)
            client.ehlo("app.example.com")
        return client.esmtp_features["size"], certificate
