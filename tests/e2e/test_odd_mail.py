"""Mail as odd clients send it, through a whole node to a server: what arrives is what was meant, signed, byte for byte;
what cannot be taken is refused with the way to write it."""

import smtplib
import subprocess
import urllib.request

import pytest

from tests.conftest import FreshDatabase
from tests.e2e.conftest import furnish, need
from tests.e2e.house import House, wait_until
from tests.e2e.signatures import printed_records, verified_algorithms
from tests.peers.sink import Arrival, Sink

BOTH = ["ed25519-sha256", "rsa-sha256"]
LONG = "reply+" + "A3" * 60
MDN = (
    b"From: app@example.com\r\nTo: you@example.net\r\nSubject: Read: x\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/report; report-type=disposition-notification;\r\n\tboundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/plain\r\n\r\nRead.\r\n"
    b"--b\r\nContent-Type: message/disposition-notification\r\n\r\n"
    b"Final-Recipient: rfc822;app@example.com\r\n"
    b"Disposition: manual-action/MDN-sent-manually; displayed\r\n\r\n--b--\r\n"
)


def plain(author: bytes) -> bytes:
    return b"From: " + author + b"\r\nTo: you@example.net\r\nSubject: x\r\n\r\nHello.\r\n"


@pytest.fixture
def house(small_house: House, sink: Sink) -> House:
    house = small_house
    house.settings["submission"] |= {"allow_plaintext_auth": True}
    house.settings["trusted_networks"] = [{"network": "127.0.0.2/32", "client": "acme"}]
    house.write_config()
    house.migrate()
    house.start()
    furnish(house, sink.port)
    house.run("client", "set", "acme", "--tier", "Dominance")
    house.run("domain", "add", "b\u00fccher.example", "--client", "acme")
    house.run("mailbox", "add", "app@b\u00fccher.example", "--daily-limit", "unlimited")
    house.run("mailbox", "add", f"{LONG}@example.com", "--daily-limit", "unlimited")
    return house


class Client(smtplib.SMTP):
    """A trusted host that says what it is told to."""

    def __init__(self, house: House, host: str = "127.0.0.2") -> None:
        super().__init__("127.0.0.1", house.smtp_port, timeout=30, source_address=(host, 0))
        self.ehlo("My PC")

    def line(self, text: str) -> str:
        self.send(text.encode() + b"\r\n")
        code, reply = self.getreply()
        return f"{code} {reply.decode()}"

    def hand_in(self, mail: str, rcpts: list[str], content: bytes) -> str:
        for line in (f"MAIL FROM:{mail}", *(f"RCPT TO:{each}" for each in rcpts)):
            reply = self.line(line)
            if not reply.startswith("250"):
                self.line("RSET")
                return reply
        code, reply = self.data(content)
        return f"{code} {reply.decode('utf-8')}"


# Name, MAIL, RCPT, content, and what arrives: reverse-path, recipients.
TAKEN = [
    ("same twice", "<app@example.com>", ["<you@example.net>"], plain(b"app@example.com <app@example.com>")),
    ("other case", "<app@example.com>", ["<you@example.net>"], plain(b"App@EXAMPLE.com <app@example.com>")),
    ("quoted", "<app@example.com>", ["<you@example.net>"], plain(b'"app@example.com" <app@example.com>')),
    ("comment", "<app@example.com>", ["<you@example.net>"], plain(b"app@example.com (a) <app@example.com>")),
    ("IDN", "<app@example.com>", ["<you@example.net>"],
     plain("app@b\u00fccher.example <app@xn--bcher-kva.example>".encode())),
    ("latin-1", "<app@example.com>", ["<you@example.net>"], plain(b"J\xf6rg M\xfcller <app@example.com>")),
    ("latin-1 quoted", "<app@example.com>", ["<you@example.net>"], plain(b'"M\xfcller, J\xf6rg" <app@example.com>')),
    ("cp1251", "<app@example.com>", ["<you@example.net>"], plain(b"\xc8\xe2\xe0\xed <app@example.com>")),
    ("cut utf-8", "<app@example.com>", ["<you@example.net>"], plain(b"J\xc3 <app@example.com>")),
    ("latin-1 comment", "<app@example.com>", ["<you@example.net>"], plain(b"app@example.com (J\xf6rg)")),
    ("long sender", f"<{LONG}@example.com>", ["<you@example.net>"], plain(f"{LONG}@example.com".encode())),
    ("long recipient", "<app@example.com>", [f"<{LONG}@example.net>"], plain(b"app@example.com")),
    ("longest recipient", "<app@example.com>", [f"<{'x' * 242}@example.net>"], plain(b"app@example.com")),
    ("no brackets", " app@example.com", [" you@example.net NOTIFY=FAILURE"], plain(b"app@example.com")),
    ("mbox", "<app@example.com>", ["<you@example.net>"],
     b"From app@example.com Tue Jan  6 10:00:00 2026\r\n" + plain(b"app@example.com")),
    ("quoted mbox", "<app@example.com>", ["<you@example.net>"], b">From x\r\n" + plain(b"app@example.com")),
    ("receipt", "<>", ["<you@example.net>"], MDN),
]  # fmt: skip

ON_THE_WIRE = [
    ("<a..b@docomo.test>", '"a..b"@docomo.test'),
    ("<name.@docomo.test>", '"name."@docomo.test'),
    ("<.name@docomo.test>", '".name"@docomo.test'),
    ('<"c..d"@docomo.test>', '"c..d"@docomo.test'),
    ("e..f@docomo.test", '"e..f"@docomo.test'),
    ('<"two words"@example.net>', '"two words"@example.net'),
    ("<Postmaster>", "Postmaster@example.com"),
    ("<@relay.example:g@example.net>", "g@example.net"),
    ("<u@[192.0.2.1]>", "u@[192.0.2.1]"),
    ("<o'neil+x=y@example.net>", "o'neil+x=y@example.net"),
]

REFUSED = [
    (plain(b"boss@rival.example <app@example.com>"), "From holds an address inside its display name; put"),
    (plain(b"app@example.com <boss@rival.example>"), "From holds an address inside its display name; put"),
    (plain(b"app@example.com <app@xn--bcher-kva.example>"), "From holds an address inside its display name; put"),
    (plain(b"'app@example.com' <app@example.com>"), "From has an address in single quotes; use double quotes"),
    (plain(b"[Shop] Orders <app@example.com>"), "From has [ outside double quotes; put the display name in double"),
    (plain(b"Doe, John <app@example.com>"), "From has a comma in its display name; put the display name in double"),
    (plain(b"app@example.com,"), "From has a stray comma"),
    (plain(b"app@example.com; b@example.com"), "From holds a semicolon; write one address"),
    (plain(b"undisclosed-recipients:;"), "From holds a group; write one address, as in From: name@example.com"),
    (plain(b'"Doe <app@example.com>'), "From has a double quote that is not closed"),
    (plain(b"Doe <app@example.com"), "From has a < without its >"),
    (plain(b"J\xf6rg <j\xf6rg@example.com>"), "From: address is not UTF-8"),
    (plain(b"a..b@example.com"), 'From holds misplaced dots; put double quotes around "a..b"'),
    (b"From x\r\nTo: you@example.net\r\n\r\nx\r\n", "message has no From field"),
    (plain(b"app@example.com").replace(b"Hello", b"Hel\x00lo"), "NUL in the message: remove it, or send"),
]


def test_odd_mail_arrives_as_it_was_meant(house: House, sink: Sink) -> None:
    records = printed_records(house, "example.com") | printed_records(house, "xn--bcher-kva.example")
    with Client(house) as client:
        for number, (name, mail, rcpts, content) in enumerate(TAKEN, 1):
            assert client.hand_in(mail, rcpts, content).startswith("250"), name
            wait_until(lambda count=number: len(sink.arrivals) == count, what=name)
            arrival = sink.arrivals[-1]
            assert arrival.reverse_path == mail.strip(" <>"), name
            assert arrival.recipients == tuple(each.split()[0].strip(" <>") for each in rcpts), name
            assert b"Received: from My?PC ([127.0.0.2])\r\n" in arrival.content
            sent = content.partition(b"From: ")[2] if b"\nFrom: " in content else content.removeprefix(b"From: ")
            assert arrival.content.endswith(b"From: " + sent), name
            assert verified_algorithms(arrival.content, records) == BOTH, name
        assert number == len(TAKEN)
    assert len(house.json("message", "find", "--recipient", f"{LONG}@example.net")["items"]) == 1
    assert LONG in house.run("queue", "list", "--state", "sent", "--json").stdout


def test_odd_recipients_are_quoted_on_the_wire(house: House, sink: Sink) -> None:
    with Client(house) as client:
        for given, _ in ON_THE_WIRE:
            assert client.hand_in("<app@example.com>", [given], plain(b"app@example.com")).startswith("250"), given
    wait_until(lambda: len(sink.arrivals) == len(ON_THE_WIRE), what="all of them")
    assert sorted(sink.recipients) == sorted(wire for _, wire in ON_THE_WIRE)
    house.run("suppression", "add", "a..b@docomo.test", "--client", "acme")
    for spelling in ("<a..b@docomo.test>", '<"a..b"@docomo.test>', "<A..B@DOCOMO.test>"):
        with Client(house) as client:
            wait_until(
                lambda text=spelling: client.hand_in("<app@example.com>", [text], plain(b"app@example.com")).startswith(
                    '550 5.7.1 <"'
                ),
                what=spelling,
            )


def test_what_cannot_be_taken_says_how_to_write_it(house: House, sink: Sink) -> None:
    with Client(house) as client:
        for content, text in REFUSED:
            reply = client.hand_in("<app@example.com>", ["<you@example.net>"], content)
            assert reply.startswith("550 5.6.0 ") and text in reply and "\\" not in reply, (content, reply)
        for fields in (b"Comments: no receipt", b"Content-Type: multipart/report; report-type=delivery-status"):
            reply = client.hand_in("<>", ["<you@example.net>"], fields + b"\r\n" + plain(b"app@example.com"))
            assert reply.startswith("550 5.7.1 Client acme may use the null reverse-path <> only for read receipts")
            assert reply.endswith("relayd client set acme --may-send-bounces")
        # A receipt is sent as nobody else.
        reply = client.hand_in("<>", ["<you@example.net>"], MDN.replace(b"app@example.com", b"boss@rival.example"))
        assert reply.startswith("550 5.7.1 From <boss@rival.example> is not allowed")
        author = "From: j\u00f6rg@b\u00fccher.example\r\n\r\nx\r\n".encode()
        house.run("domain", "set", "b\u00fccher.example", "--status", "suspended")
        told = "550 5.7.1 j{}rg@xn--bcher-kva.example"
        for mail, letter in (("<app@example.com>", "?"), ("<app@example.com> SMTPUTF8", "\u00f6")):
            reply = client.hand_in(mail, ["<you@example.net>"], author)
            assert told.format(letter) in reply.replace("From <", "").replace("> is", ":"), reply
    assert sink.arrivals == []


def test_a_refused_odd_message_comes_back_in_a_notification(house: House, sink: Sink) -> None:
    sink.on_rcpt = lambda recipient: "250 ok" if recipient == "app@example.com" else "550 5.1.1 no such user"
    with Client(house) as client:
        for rcpt in ("<a..b@docomo.test>", f"<{LONG}@example.net>"):
            author = b"J\xf6rg <app@example.com>"
            assert client.hand_in("<app@example.com>", [rcpt], plain(author)).startswith("250")
    wait_until(lambda: len(sink.arrivals) == 2, what="the notifications")

    def bounce(of: bytes) -> Arrival:
        return next(arrival for arrival in sink.arrivals if of in arrival.content)

    assert b'Final-Recipient: rfc822; "a..b"@docomo.test' in bounce(b"docomo").content.replace(b"\r\n\t", b" ")
    assert all(arrival.reverse_path == "" for arrival in sink.arrivals)
    assert b"J=F6rg <app@example.com>" in bounce(b"docomo").content
    assert house.json("suppression", "list", "--client", "acme")["items"][0]["address"] == '"a..b"@docomo.test'


def test_a_pool_writes_its_own_address_into_an_odd_from(house: House, sink: Sink) -> None:
    house.run("mailbox", "add", "other@example.com", "--daily-limit", "unlimited")
    house.run("pool", "add", "shared", "--client", "acme")
    house.run("pool", "member", "add", "shared", "other@example.com", "--client", "acme")
    house.run("pool", "set", "shared", "--client", "acme", "--rewrite-from")
    authors = [b"J\xf6rg <app@example.com>", b"app@example.com <app@example.com>", b'"M\xfc, J" <app@example.com>']
    with Client(house) as client:
        for author in authors:
            content = b"X-Relayd-Pool: shared\r\n" + plain(author)
            assert client.hand_in("<app@example.com>", ["<you@example.net>"], content).startswith("250")
    wait_until(lambda: len(sink.arrivals) == len(authors), what="all of them")
    wanted = {b"From: " + author.replace(b"app@", b"other@") + b"\r\n" for author in authors}
    assert {line for line in wanted if any(line in arrival.content for arrival in sink.arrivals)} == wanted
    records = printed_records(house, "example.com")
    assert all(verified_algorithms(arrival.content, records) == BOTH for arrival in sink.arrivals)


def is_suspended(client: Client) -> bool:
    reply = client.line("MAIL FROM:<app@example.com>")
    client.line("RSET")
    return reply.startswith("525 5.7.13 Client suspended; ask ")


def test_a_suspended_client_does_not_look_like_a_wrong_password(house: House, database: FreshDatabase) -> None:
    secret = house.json("credential", "add", "app", "--client", "acme")["secret"]
    with Client(house) as trusted, Client(house, "127.0.0.1") as open_session:
        open_session.login("app", secret)
        house.run("client", "set", "acme", "--status", "suspended")
        for client in (trusted, open_session):
            wait_until(lambda client=client: is_suspended(client), what="the suspension")
        for login, password, code in (("app", secret, 525), ("app", "guess", 535), ("nobody", secret, 535)):
            with Client(house, "127.0.0.1") as client, pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                client.login(login, password)
            assert refused.value.smtp_code == code
            assert (b"suspended" in refused.value.smtp_error) == (code == 525)
        lines = [line for line in house.log_text().splitlines() if "client_suspended" in line]
        assert any("login=app" in line and "client=acme" in line for line in lines), house.log_text()[-3000:]
        with urllib.request.urlopen(f"http://127.0.0.1:{house.http_port}/metrics") as page:
            metrics = page.read().decode()
        counted = [line for line in metrics.splitlines() if 'reason="client_suspended"' in line]
        assert any('stage="auth"' in line.lower() for line in counted), counted
        house.run("client", "set", "acme", "--status", "active")
        house.run("credential", "set", "app", "--inactive")
        with Client(house, "127.0.0.1") as client, pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            wait_until(lambda: client.login("app", secret) is None, what="a refusal")
        assert refused.value.smtp_error.startswith(b"5.7.13 Credential disabled; ask")


def test_swaks_and_its_odd_options_work(house: House, sink: Sink) -> None:
    need("swaks")
    for options in (
        ["--ehlo", "a b"],
        ["--ehlo", "my_pc"],
        ["--protocol", "SMTP", "--ehlo", "(odd)"],
        ["--to", "a..b@docomo.test"],
        ["--to", f"{LONG}@example.net"],
        ["--header", "From: app@example.com <app@example.com>"],
    ):
        done = subprocess.run(
            ["swaks", "--server", "127.0.0.1", "--port", str(house.smtp_port), "--local-interface", "127.0.0.2",
             "--from", "app@example.com", "--to", "you@example.net", *options],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: len(sink.arrivals) == 6, what="all of them")
