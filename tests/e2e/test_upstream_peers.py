"""Servers that others wrote, as upstreams: relayd logs in, verifies their certificate, and they take its mail."""

from pathlib import Path
from typing import Any

import pytest
import trustme

from relayd.control.client import ControlClient, path_of
from relayd.mail.envelope import RecipientNotice
from relayd.rules.outcome import Sent
from relayd.upstream.smarthost import Smarthost
from tests.conftest import at_length
from tests.e2e.conftest import need
from tests.e2e.house import House, free_port, wait_until
from tests.e2e.mail import send
from tests.peers.dovecot import DovecotSubmission
from tests.peers.mail import settings, transmission
from tests.peers.postfix import Postfix
from tests.peers.sink import Sink

LOGIN = ("relay", "correct horse battery")


@pytest.fixture
def certificates(directory: Path) -> tuple[Path, Path]:
    """The authority's certificate, and the chain and key of a server on localhost."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    both = directory / "server.pem"
    both.write_bytes(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
    return directory / "authority.pem", both


@at_length
def test_postfix_takes_mail_from_who_logs_in_under_tls(
    house: House, directory: Path, certificates: tuple[Path, Path]
) -> None:
    need("postfix", "saslpasswd2")
    with Postfix(directory, free_port(), chain_file=certificates[1], login=LOGIN) as postfix:
        _furnish(house, postfix.port, certificates[0])
        told = _tried(house)
        assert told["auth"] == "PLAIN as relay" and "certificate verified" in told["tls"]
        send(house, ["you@example.net"])
        (message,) = wait_until(postfix.mail, what="the message in the Maildir")
        assert b"using TLSv1." in message
        assert "sasl_method=PLAIN, sasl_username=relay@mx.example.net" in postfix.log()
        control = ControlClient((house.socket,))
        control.patch(path_of("upstreams", "out"), {"auth_mechanism": "CRAM-MD5"})
        assert _tried(house)["auth"] == "CRAM-MD5 as relay"
        control.patch(path_of("upstreams", "out"), {"password": "wrong horse"})
        assert _tried(house)["auth"].startswith("535 5.7.8 ")


async def test_postfix_understands_what_a_sender_wants_to_be_told(directory: Path) -> None:
    need("postfix")
    with Postfix(directory, free_port()) as postfix:
        smarthost = Smarthost(settings(postfix.port))
        asked = {
            "notices": (RecipientNotice("SUCCESS,DELAY", "rfc822;One+2B1@example.net"), RecipientNotice("NEVER")),
            "dsn_ret": "FULL",
            "envelope_id": "order+2B17",
        }
        outcomes = await smarthost.deliver(transmission("one@example.net", "two@example.net", **asked))
        await smarthost.close()
    assert all(isinstance(outcome, Sent) and outcome.dsn_passed for outcome in outcomes), outcomes


@at_length
def test_dovecot_takes_mail_from_who_logs_in_under_tls(
    house: House, sink: Sink, directory: Path, certificates: tuple[Path, Path]
) -> None:
    need("dovecot")
    dovecot = DovecotSubmission(directory, free_port(), chain_file=certificates[1], login=LOGIN, relay_port=sink.port)
    with dovecot:
        _furnish(house, dovecot.port, certificates[0], auth_mechanism="CRAM-MD5")
        told = _tried(house)
        assert told["auth"] == "CRAM-MD5 as relay" and "certificate verified" in told["tls"]
        send(house, ["you@example.net"])
        wait_until(lambda: sink.arrivals, what="the message behind Dovecot")
        assert "method=CRAM-MD5" in dovecot.log() and "TLS" in dovecot.log()
    (arrival,) = sink.arrivals
    assert arrival.recipients == ("you@example.net",) and b"DKIM-Signature" in arrival.content


def _furnish(house: House, port: int, ca_file: Path, **options: Any) -> None:
    house.start()
    control = ControlClient((house.socket,))
    upstream = {"provider": "smtp_relay", "host": "localhost", "port": port, "tls": "starttls"}
    login = {"username": LOGIN[0], "password": LOGIN[1], "ca_file": str(ca_file)}
    control.post(path_of("clients"), {"name": "acme"})
    control.post(path_of("upstreams"), {"name": "out", **upstream, **login, **options})
    control.post(path_of("domains"), {"domain": "example.com", "client": "acme"})
    control.post(path_of("mailboxes"), {"email_address": "app@example.com", "daily_send_limit": None})


def _tried(house: House) -> dict[str, str]:
    """What each step of a test said."""
    reply = ControlClient((house.socket,)).post(path_of("upstreams", "out", "test"), {"to": "you@example.net"})
    assert LOGIN[1] not in reply.text and "wrong horse" not in reply.text
    return {step["name"]: step["result"] for step in reply.data["steps"]}
