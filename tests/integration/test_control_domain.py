"""Domains and their DNS records over the control socket."""

import json

import pytest

from relayd.mail.dkim_key import load_private, public_of
from relayd.mail.dkim_record import Algorithm, record_value
from relayd.store import directory
from tests.integration.conftest import Control


@pytest.fixture
async def acme(control: Control) -> Control:
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("POST", "upstreams", {"name": "out", "provider": "smtp_relay", "host": "smtp.example.net"})
    return control


async def test_adding_a_domain_makes_both_keys_and_answers_with_what_to_publish(acme: Control) -> None:
    added = await acme.ok("POST", "domains", {"domain": "Example.COM", "client": "acme"})
    assert (added["domain"]["domain"], added["domain"]["status"]) == ("example.com", "active")
    assert added["records"] == await acme.ok("GET", "domains/example.com/records")
    records = {record["name"]: record for record in added["records"]["items"]}
    assert [record["type"] for record in added["records"]["items"]] == ["TXT", "TXT", "TXT", "TXT", "MX"]
    assert "ip4:192.0.2.1" in added["records"]["items"][0]["value"]
    assert len(added["records"]["zone"]) == 5 and added["records"]["notes"] == []
    async with acme.db.connection() as connection:
        domain = await directory.find_domain(connection, "example.com")
        assert domain is not None
        keys = await directory.find_keys(connection, domain.id)
    assert [key.algorithm for key in keys] == ["rsa-sha256", "ed25519-sha256"]
    for key in keys:
        algorithm = Algorithm(key.algorithm)
        private = load_private(algorithm, acme.house.seal.open(key.private_key_sealed, row=key.seal_row))
        published = records[f"{key.selector}._domainkey.example.com"]["value"]
        assert published == record_value(algorithm, public_of(private))


async def test_private_keys_are_never_told(acme: Control) -> None:
    texts = [(await acme.request("POST", "domains", {"domain": "example.com", "client": "acme"})).text]
    for path in ("domains", "domains/example.com", "domains/example.com/records", "audit"):
        texts.append((await acme.request("GET", path)).text)
    async with acme.db.connection() as connection:
        sealed = [row[0] for row in await connection.fetch("SELECT private_key_sealed FROM dkim_keys")]
    assert len(sealed) == 2
    for text in texts:
        assert "PRIVATE" not in text
        assert not [value for value in sealed if value.hex() in text]


@pytest.mark.parametrize("name", ["example", "exa mple.com", "-x.example", "[192.0.2.1]", "a@b.c", ".", "x..y", ""])
async def test_what_is_no_domain_is_refused(acme: Control, name: str) -> None:
    answer = await acme.request("POST", "domains", {"domain": name, "client": "acme"})
    assert answer.status == 422 and answer.message.startswith("domain: must be")


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("m\u00fcller.de", "xn--mller-kva.de"),
        ("M\u00dcLLER.de", "xn--mller-kva.de"),
        ("mu\u0308ller.de", "xn--mller-kva.de"),
        ("stra\u00dfe.example", "xn--strae-oqa.example"),
        ("\u4f8b\u3048.\u30c6\u30b9\u30c8", "xn--r8jz45g.xn--zckzah"),
        ("mail.\u043f\u0440\u0438\u043c\u0435\u0440.example", "mail.xn--e1afmkfd.example"),
    ],
)
async def test_a_domain_may_be_named_in_its_own_script_everywhere(acme: Control, name: str, stored: str) -> None:
    added = await acme.cli("domain", "add", name, "--client", "acme")
    assert added.code == 0 and f"domain {stored} added" in added.out
    for argv in (
        ("mailbox", "add", f"jo\u0308@{name}"),
        ("domain", "show", name),
        ("domain", "records", name),
        ("domain", "set", name, "--default-mailbox", f"j\u00f6@{name}"),
        ("domain", "set", name, "--bounce-domain", f"b.{name}"),
        ("mailbox", "show", f"J\u00d6@{name}"),
        ("mailbox", "list", "--domain", name),
        ("limits", "--domain", name),
        ("queue", "list", "--domain", name),
        ("queue", "list", "--recipient", f"@{name}"),
        ("message", "find", "--recipient", f"jo\u0308@{name}"),
        ("message", "find", "--sender", f"@{name}"),
        ("credential", "add", "app", "--client", "acme", "--sender", name),
        ("suppression", "add", f"jo\u0308@{name}", "--client", "acme"),
        ("suppression", "list", "--client", "acme", "--domain", name),
        ("suppression", "remove", f"j\u00f6@{name}", "--client", "acme"),
        (
            "route",
            "add",
            "r",
            "--client",
            "acme",
            "--recipient-domain",
            name,
            "--upstreams",
            "out",
            "--allow-misaligned",
        ),
        ("mailbox", "remove", f"jo\u0308@{name}"),
    ):
        ran = await acme.cli(*argv)
        assert ran.code == 0, (argv, ran.err)
    assert (await acme.ok("GET", "credentials/app"))["senders"] == [stored]
    assert (await acme.ok("GET", "routes/r"))["recipient_domain"] == stored
    assert (await acme.ok("GET", f"domains/{stored}"))["bounce_domain"] == f"b.{stored}"


async def test_a_domain_is_one_clients_alone_and_its_client_must_exist(acme: Control) -> None:
    assert (await acme.request("POST", "domains", {"domain": "example.com", "client": "nobody"})).status == 404
    await acme.ok("POST", "clients", {"name": "other"})
    await acme.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    answer = await acme.request("POST", "domains", {"domain": "EXAMPLE.com", "client": "other"})
    assert answer.status == 409 and "there is a domain example.com already" in answer.message
    assert (await acme.ok("GET", "domains", params={"client": "other"})) == {"items": []}


async def test_a_domain_with_mailboxes_stays_and_a_removed_one_can_come_again(acme: Control) -> None:
    first = await acme.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    await acme.ok("POST", "mailboxes", {"email_address": "a@example.com"})
    answer = await acme.request("DELETE", "domains/example.com")
    assert answer.status == 409 and "1 mailbox" in answer.message and "relayd mailbox list" in answer.message
    assert (await acme.request("DELETE", "clients/acme")).status == 409
    await acme.ok("DELETE", "mailboxes/a@example.com")
    await acme.ok("DELETE", "domains/example.com")
    again = await acme.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    selectors = [{r["name"] for r in each["records"]["items"] if "_domainkey" in r["name"]} for each in (first, again)]
    assert not selectors[0] & selectors[1]


async def test_the_default_mailbox_is_one_of_the_domain(acme: Control) -> None:
    for name in ("example.com", "example.org"):
        await acme.ok("POST", "domains", {"domain": name, "client": "acme"})
        await acme.ok("POST", "mailboxes", {"email_address": f"a@{name}"})
    changed = await acme.ok("PATCH", "domains/example.com", {"default_mailbox": "a@example.com", "status": "suspended"})
    assert (changed["default_mailbox"], changed["status"]) == ("a@example.com", "suspended")
    answer = await acme.request("PATCH", "domains/example.com", {"default_mailbox": "a@example.org"})
    assert answer.status == 422 and "not in the domain" in answer.message
    await acme.ok("DELETE", "mailboxes/a@example.com")
    assert (await acme.ok("GET", "domains/example.com"))["default_mailbox"] is None


async def test_the_command_line_prints_the_records_three_ways(acme: Control) -> None:
    added = await acme.cli("domain", "add", "example.com", "--client", "acme")
    assert added.code == 0, added.err
    assert "_dmarc.example.com" in added.out and "publish" in added.err and "relayd mailbox add" in added.err
    zone = await acme.cli("domain", "records", "example.com", "--zone")
    assert [line.split()[1:3] for line in zone.out.splitlines()] == [["IN", "TXT"]] * 4 + [["IN", "MX"]]
    plain = await acme.cli("domain", "records", "example.com")
    rsa = next(r for r in json.loads((await acme.cli("domain", "records", "example.com", "--json")).out)["items"][1:])
    assert rsa["value"] in plain.out
    shown = await acme.cli("domain", "show", "example.com")
    assert "ed25519-sha256" in shown.out
