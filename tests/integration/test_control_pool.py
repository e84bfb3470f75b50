"""Mailbox pools over the control socket and by the command line."""

import pytest

from tests.integration.conftest import Control


@pytest.fixture
async def acme(control: Control) -> Control:
    """acme has a@ and b@example.com, credential app and pool news with both; rival has boss@rival.example."""
    upstream = {"name": "sink", "provider": "smtp_relay", "host": "127.0.0.1", "port": 25, "tls": "none"}
    await control.ok("POST", "upstreams", upstream)
    for client, domain in (("acme", "example.com"), ("rival", "rival.example")):
        await control.ok("POST", "clients", {"name": client})
        await control.ok("POST", "domains", {"domain": domain, "client": client})
    for address in ("a@example.com", "b@example.com", "boss@rival.example"):
        await control.ok("POST", "mailboxes", {"email_address": address})
    await control.ok("POST", "credentials", {"login": "app", "client": "acme"})
    await control.ok("POST", "pools", {"name": "news", "client": "acme"})
    for address in ("a@example.com", "b@example.com"):
        await control.ok("POST", f"clients/acme/pools/news/members/{address}", {})
    return control


@pytest.fixture
async def utf8(acme: Control) -> Control:
    """A mailbox that is not ASCII, in the pool utf8; and the pool rewrites, which may rewrite From."""
    await acme.ok("POST", "mailboxes", {"email_address": "jörg@example.com"})
    for name in ("utf8", "rewrites"):
        await acme.ok("POST", "pools", {"name": name, "client": "acme"})
    await acme.ok("POST", "clients/acme/pools/utf8/members/jörg@example.com", {})
    rewrites = await acme.ok("PATCH", "clients/acme/pools/rewrites", {"may_rewrite_from": True})
    assert rewrites["may_rewrite_from"]
    return acme


async def test_a_pool_from_its_making_to_its_end_by_command(control: Control) -> None:
    await control.ok("POST", "upstreams", {"name": "s", "provider": "smtp_relay", "host": "h.example", "tls": "none"})
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    await control.ok("POST", "mailboxes", {"email_address": "a@example.com"})
    await control.ok("POST", "credentials", {"login": "app", "client": "acme"})
    added = await control.cli("pool", "add", "news", "--client", "acme")
    assert added.code == 0 and "relayd pool member add news ADDRESS --client acme" in added.err
    joined = await control.cli("pool", "member", "add", "news", "a@example.com", "--client", "acme")
    assert joined.code == 0 and "relayd credential set LOGIN --pool news" in joined.err
    assert (await control.cli("credential", "set", "app", "--pool", "news")).code == 0
    assert (await control.cli("domain", "set", "example.com", "--default-pool", "news")).code == 0
    shown = await control.cli("pool", "show", "news", "--client", "acme")
    assert all(word in shown.out for word in ("a@example.com", "app", "example.com"))
    assert "news" in (await control.cli("credential", "show", "app")).out
    assert "news" in (await control.cli("domain", "show", "example.com")).out
    assert "news" in (await control.cli("pool", "list")).out
    refused = await control.cli("pool", "remove", "news", "--client", "acme")
    assert refused.code == 1 and "still needed by 1 credential and 1 domain" in refused.err
    assert "relayd credential set app --pool none" in refused.err
    assert (await control.cli("credential", "set", "app", "--pool", "none")).code == 0
    assert (await control.cli("domain", "set", "example.com", "--default-pool", "none")).code == 0
    left = await control.cli("pool", "member", "remove", "news", "a@example.com", "--client", "acme")
    assert left.code == 0, left.err
    assert (await control.cli("pool", "remove", "news", "--client", "acme")).code == 0
    assert "no pools yet" in (await control.cli("pool", "list")).err


async def test_a_pool_keeps_what_it_needs_while_it_is_used(acme: Control) -> None:
    await acme.ok("PATCH", "credentials/app", {"pool": "news"})
    left = await acme.ok("DELETE", "clients/acme/pools/news/members/a@example.com")
    assert (left["members"], left["credentials"]) == (["b@example.com"], ["app"])
    last = await acme.request("DELETE", "clients/acme/pools/news/members/b@example.com")
    assert last.status == 409 and "the last one of pool news, which is still needed by 1 credential" in last.message
    gone = await acme.request("DELETE", "mailboxes/b@example.com")
    assert gone.status == 409 and "the last one of pool news" in gone.message
    await acme.ok("DELETE", "credentials/app")
    await acme.ok("DELETE", "mailboxes/b@example.com")
    assert (await acme.ok("GET", "clients/acme/pools/news"))["members"] == []


async def test_a_removed_mailbox_leaves_its_pools(acme: Control) -> None:
    await acme.ok("PATCH", "domains/example.com", {"default_pool": "news"})
    await acme.ok("DELETE", "mailboxes/a@example.com")
    async with acme.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM mailbox_pool_members") == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "pools", {"name": "news", "client": "acme"}, 409, "client acme has a pool news already"),
        ("POST", "pools", {"name": "No Name", "client": "acme"}, 422, "name"),
        ("POST", "pools", {"name": "more", "client": "nobody"}, 404, "there is no client nobody"),
        ("GET", "clients/rival/pools/news", None, 404, "there is no pool news, nor any other"),
        ("GET", "clients/acme/pools/old", None, 404, "there is no pool old; there are: news, rewrites, utf8"),
        ("POST", "clients/acme/pools/news/members/boss@rival.example", {}, 409, "is not client acme's"),
        ("POST", "clients/acme/pools/news/members/a@example.com", {}, 409, "is in pool news already"),
        ("POST", "clients/acme/pools/news/members/c@example.com", {}, 404, "there is no mailbox c@example.com"),
        ("DELETE", "clients/acme/pools/news/members/boss@rival.example", None, 404, "is not in pool news; in it: a@"),
        ("PATCH", "clients/acme/pools/utf8", {"may_rewrite_from": True}, 409, "jörg@example.com cannot take the place"),
        ("POST", "clients/acme/pools/rewrites/members/jörg@example.com", {}, 409, "cannot take the place of From"),
        ("PATCH", "clients/acme/pools/news", {}, 422, "nothing to change"),
        ("PATCH", "credentials/app", {"pool": "old"}, 404, "there is no pool old"),
        ("PATCH", "domains/rival.example", {"default_pool": "news"}, 404, "there is no pool news"),
    ],
)
async def test_what_makes_no_sense_is_refused_whole(
    utf8: Control, method: str, path: str, body: object, status: int, text: str
) -> None:
    before = (await utf8.request("GET", "pools")).text
    answer = await utf8.request(method, path, body)
    assert answer.status == status and text in answer.message, answer.text
    assert (await utf8.request("GET", "pools")).text == before


async def test_an_empty_pool_sends_for_nobody(acme: Control) -> None:
    await acme.ok("POST", "pools", {"name": "empty", "client": "acme"})
    for path, body in (("credentials/app", {"pool": "empty"}), ("domains/example.com", {"default_pool": "empty"})):
        answer = await acme.request("PATCH", path, body)
        assert answer.status == 409 and "relayd pool member add empty ADDRESS --client acme" in answer.message


async def test_changes_are_audited_and_dated(acme: Control) -> None:
    before = (await acme.ok("GET", "domains/example.com"))["updated_at"]
    assert (await acme.ok("PATCH", "domains/example.com", {"default_pool": "news"}))["updated_at"] > before
    async with acme.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT table_name, action, count(*) FROM audit_logs WHERE table_name LIKE 'mailbox_pool%' GROUP BY 1, 2"
        )
    assert {tuple(row) for row in rows} == {("mailbox_pools", "insert", 1), ("mailbox_pool_members", "insert", 2)}
