"""Each upstream gets the signatures that it accepts, over what it keeps, from one stored message."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import furnish, need
from tests.e2e.house import House, wait_until
from tests.e2e.mail import send
from tests.e2e.signatures import printed_records, signed_part, verified_algorithms
from tests.peers import opendkim
from tests.peers.ses import SesSink, signatures
from tests.peers.sink import Sink


@pytest.fixture
def ses() -> Iterator[SesSink]:
    with SesSink() as running:
        yield running


@pytest.fixture
def both(house: House, sink: Sink, ses: SesSink) -> House:
    """A mailbox whose upstream is the sink; mail to b.example goes by SES."""
    house.start()
    furnish(house, sink.port)
    add_ses(house, ses)
    house.run("route", "add", "partner", "--client", "acme", "--recipient-domain", "b.example", "--upstreams", "ses")
    return house


def add_ses(house: House, ses: SesSink) -> None:
    where = ("--host", "127.0.0.1", "--port", str(ses.port), "--tls", "none", "--dialect", "ses")
    house.run("upstream", "add", "ses", "--provider", "smtp_relay", *where)


def test_one_message_leaves_with_two_signatures_here_and_one_there(
    both: House, sink: Sink, ses: SesSink, tmp_path: Path
) -> None:
    need("opendkim")
    own = "DKIM-Signature: v=1; a=rsa-sha256; d=app.example; s=x; h=From; bh=AAAA; b=AAAA\r\n"
    queue_id = send(both, ["you@example.net", "you@b.example"], text="Dear  you,\t \r\n..\r\n\r\n", fields=own)
    wait_until(lambda: sink.arrivals and (ses.arrivals or ses.refused), what="both copies")
    assert not ses.refused
    records = printed_records(both, "example.com")
    (usual,), (reduced,) = sink.arrivals, ses.arrivals
    assert signatures(usual.content) == 3 and signatures(reduced.content) == 1
    # As SES passes it on, with its own Message-ID and Date.
    assert b"\r\nMessage-ID: <0102-000000@eu-west-1.amazonses.test>\r\n" in reduced.content
    assert verified_algorithms(reduced.content, records) == ["rsa-sha256"]
    (selector,) = [name.partition("._domainkey")[0] for name, value in records.items() if "k=rsa" in value]
    assert opendkim.verdicts(reduced.content, records, tmp_path) == {selector: "succeeded"}
    for what, content in {
        "the subject": reduced.content.replace(b"Subject: Test", b"Subject: Best"),
        "the body": reduced.content.replace(b"Dear", b"Dead"),
        "a field in front": b"Reply-To: thief@example.org\r\n" + reduced.content,
    }.items():
        assert content != reduced.content
        assert opendkim.verdicts(content, records, tmp_path)[selector].startswith("failed"), what
    signed = re.sub(rb"\s", b"", reduced.content.partition(b"bh=")[0])
    assert b"h=From:From:To:To:" in signed and b"Message-ID" not in signed and b"Date" not in signed
    # The other copy is signed over all of it, by both keys.
    assert b"Message-ID:Message-ID" in re.sub(rb"\s", b"", usual.content.partition(b"bh=")[0])
    stored = both.run("message", "export", queue_id).stdout
    assert stored.count("DKIM-Signature:") == 3


def test_mail_that_waits_is_signed_for_the_upstream_that_takes_over(house: House, sink: Sink, ses: SesSink) -> None:
    house.start()
    furnish(house, sink.port)
    add_ses(house, ses)
    house.run("mailbox", "set", "app@example.com", "--upstreams", "sink,ses", "--allow-misaligned")
    house.run("pause", "everything")
    send(house, ["you@example.net"])
    house.run("upstream", "breaker", "sink", "open")
    house.run("resume", "everything")
    wait_until(lambda: ses.arrivals or ses.refused, what="the message")
    assert not ses.refused and not sink.arrivals
    assert verified_algorithms(ses.arrivals[0].content, printed_records(house, "example.com")) == ["rsa-sha256"]
    # And back: the first upstream gets both signatures again.
    house.run("upstream", "breaker", "sink", "close")
    send(house, ["you@example.net"])
    wait_until(lambda: sink.arrivals or len(ses.arrivals) > 1, what="the next message")
    assert [signatures(arrival.content) for arrival in sink.arrivals] == [2]


def test_a_bounce_is_signed_for_its_upstream_too(house: House, ses: SesSink) -> None:
    house.start()
    furnish(house, ses.port)
    house.run("upstream", "set", "sink", "--dialect", "ses")
    ses.on_rcpt = lambda recipient: "550 5.1.1 no such user" if recipient.startswith("no") else "250 ok"
    send(house, ["nobody@example.net"])
    wait_until(lambda: ses.arrivals or ses.refused, what="the bounce")
    assert not ses.refused
    (bounce,) = ses.arrivals
    assert bounce.reverse_path == "" and b"multipart/report" in bounce.content
    assert verified_algorithms(signed_part(bounce.content), printed_records(house, "example.com")) == ["rsa-sha256"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--dialect", "ses"), ["rsa-sha256"]),
        (("--dialect", "ses", "--dkim", "none"), []),
        (("--dialect", "ses", "--dkim", "rsa"), ["rsa-sha256"]),
    ],
)
def test_a_test_message_is_signed_as_mail_is(
    house: House, ses: SesSink, options: tuple[str, ...], expected: list[str]
) -> None:
    house.start()
    furnish(house, ses.port)
    house.run("upstream", "set", "sink", *options)
    tried = ("upstream", "test", "sink", "--to", "you@example.net", "--send")
    out = house.run(*tried, "--from", "app@example.com").stdout
    assert ("DKIM signatures of example.com: 1" if expected else "not signed: the upstream accepts no") in out
    send(house, ["you@example.net"])
    wait_until(lambda: len(ses.arrivals) == 2 or ses.refused, what="a message like it")
    records = printed_records(house, "example.com")
    assert [verified_algorithms(arrival.content, records) for arrival in ses.arrivals] == [expected, expected]


def test_a_test_message_of_a_stranger_says_that_nothing_signs_for_it(house: House, ses: SesSink) -> None:
    house.start()
    furnish(house, ses.port)
    tried = ("upstream", "test", "sink", "--to", "you@example.net", "--send", "--from", "a@b.example")
    assert "not signed: relayd has no domain b.example" in house.run(*tried).stdout
    assert signatures(ses.arrivals[0].content) == 0
