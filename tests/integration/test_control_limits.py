"""Limits over the control socket and by the command line."""

from typing import Any

import pytest

from tests.integration.conftest import Control


@pytest.fixture
async def acme(control: Control) -> Control:
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("POST", "domains", {"domain": "example.com", "client": "acme"})
    await control.ok("POST", "upstreams", {"name": "out", "provider": "capture", "directory": "/m"})
    await control.ok("POST", "mailboxes", {"email_address": "a@example.com"})
    return control


async def spend(control: Control, kind: str, units: int) -> None:
    async with control.db.connection() as connection:
        await connection.execute(
            "UPDATE budgets SET units_used = $2, turns_at = relayd_window_end(relayd_now(), span, time_zone)"
            " WHERE kind = $1",
            kind,
            units,
        )


def lines(out: str) -> dict[str, str]:
    return {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in out.splitlines() if "  " in line}


async def test_a_clients_limit_is_said_shown_and_taken_away(acme: Control) -> None:
    await spend(acme, "mailbox_day", 4)
    ran = await acme.cli(
        *("client", "set", "acme", "--daily-limit", "500", "--time-zone", "Europe/Berlin", "--bulk-reserve", "20")
    )
    assert ran.code == 0, ran.err
    await spend(acme, "client_day", 7)
    shown = lines((await acme.cli("client", "show", "acme")).out)
    assert (shown["daily limit"], shown["used in this window"]) == ("500", "7")
    assert (shown["window"], shown["kept from bulk mail"]) == ("midnight to midnight, Europe/Berlin", "20 %")
    assert shown["window turns"].endswith("00:00Z")
    assert (await acme.cli("client", "set", "acme", "--daily-limit", "none", "--limit-window", "rolling")).code == 0
    client = await acme.ok("GET", "clients/acme")
    assert (client["daily_send_limit"], client["limit_window"], client["turns_at"]) == (None, "rolling", None)
    assert client["used"] == 4  # what its mailboxes have
    new = await acme.ok("POST", "clients", {"name": "new", "daily_send_limit": 9, "limit_window": "rolling"})
    assert (new["daily_send_limit"], new["limit_window"], new["bulk_reserve_percent"]) == (9, "rolling", 0)


async def test_a_domains_limit_is_the_mailboxes_until_it_is_set_by_hand(acme: Control) -> None:
    await spend(acme, "mailbox_day", 4)
    shown = lines((await acme.cli("domain", "show", "example.com")).out)
    assert (shown["daily limit"], shown["used in this window"]) == ("50 (follows its mailboxes)", "4")
    ran = await acme.cli("domain", "set", "example.com", "--daily-limit", "30", "--time-zone", "Asia/Tokyo")
    assert ran.code == 0, ran.err
    domain = await acme.ok("GET", "domains/example.com")
    assert (domain["daily_send_limit"], domain["own_daily_limit"], domain["used"]) == (30, 30, 4)
    assert domain["turns_at"] is not None and domain["time_zone"] == "Asia/Tokyo"
    assert (await acme.cli("domain", "set", "example.com", "--daily-limit", "auto")).code == 0
    domain = await acme.ok("GET", "domains/example.com")
    assert (domain["daily_send_limit"], domain["own_daily_limit"]) == (50, None)


async def test_a_mailboxes_terms(acme: Control) -> None:
    added = await acme.cli(
        *("mailbox", "add", "b@example.com", "--limit-window", "rolling", "--paced", "--class", "bulk")
    )
    assert added.code == 0, added.err
    shown = lines((await acme.cli("mailbox", "show", "b@example.com")).out)
    assert (shown["window"], shown["paced through the day"], shown["class of its mail"]) == (
        "any 24 hours",
        "yes",
        "bulk",
    )
    await acme.ok("PATCH", "mailboxes/b@example.com", {"is_paced": False, "limit_window": "calendar"})
    changed = await acme.ok("PATCH", "mailboxes/b@example.com", {"mail_class": "transactional"})
    assert (changed["is_paced"], changed["limit_window"], changed["mail_class"]) == (False, "calendar", "transactional")


async def test_a_mailboxes_use_is_the_ledgers(acme: Control) -> None:
    await spend(acme, "mailbox_day", 4)
    async with acme.db.connection() as connection:
        await connection.execute("UPDATE email_mailboxes SET current_daily_sends = 9, window_ends_at = '-infinity'")
        for path in ("mailboxes/a@example.com", "mailboxes/a@example.com/warmup"):
            assert (await acme.ok("GET", path))["used"] == 4
        assert [each["used"] for each in (await acme.ok("GET", "mailboxes"))["items"]] == [4]
        await connection.execute("UPDATE relayd_state SET clock_offset = interval '1 day'")
        assert (await acme.ok("GET", "mailboxes/a@example.com"))["used"] == 0


async def test_what_a_provider_allows_is_said_shown_and_forgotten(acme: Control) -> None:
    whole = await acme.cli("upstream", "quota", "out", "--daily", "10000", "--hourly", "600", "--bulk-reserve", "10")
    assert whole.code == 0 and "upstream out" in whole.out, whole.err
    one = await acme.cli("upstream", "quota", "out", "--mailbox", "a@example.com", "--daily", "2000")
    assert one.code == 0 and "a@example.com" in one.out, one.err
    await spend(acme, "provider_hour", 60)
    listed = (await acme.cli("upstream", "quota", "out")).out.splitlines()
    assert listed[1].startswith("all of out") and "0 of 10000" in listed[1] and "60 of 600" in listed[1]
    assert listed[2].startswith("a@example.com") and "0 of 2000" in listed[2] and "any 24 hours" in listed[2]
    kept = await acme.ok("PATCH", "upstreams/out/quotas", {"hourly_limit": None})
    assert (kept["daily_limit"], kept["hourly_limit"], kept["bulk_reserve_percent"]) == (10000, None, 10)
    removed = await acme.cli("upstream", "quota", "out", "--mailbox", "a@example.com", "--remove")
    assert removed.out == "quota of upstream out, mailbox a@example.com removed\n", removed.err
    assert [each["mailbox"] for each in (await acme.ok("GET", "upstreams/out/quotas"))["items"]] == [None]
    assert (await acme.ok("DELETE", "upstreams/out/quotas")) == {"name": "upstream out"}
    answer = await acme.request("DELETE", "upstreams/out/quotas")
    assert answer.status == 404 and "relayd upstream quota out" in answer.message
    names = {item["actor"] for item in (await acme.ok("GET", "audit", params={"table": "quota"}))["items"]}
    assert len(names) == 1 and names != {"relayd"}


async def test_a_quota_of_a_mailbox_that_sends_elsewhere_is_refused(acme: Control) -> None:
    await acme.ok("POST", "upstreams", {"name": "other", "provider": "capture", "directory": "/n"})
    body = {"mailbox": "a@example.com", "daily_limit": 5}
    answer = await acme.request("PATCH", "upstreams/other/quotas", body)
    assert answer.status == 409 and "sends through out, not through other" in answer.message
    assert (await acme.ok("GET", "upstreams/other/quotas")) == {"items": []}
    for unknown in ("upstreams/zz/quotas", "upstreams/out/quotas/zz%40example.com"):
        assert (await acme.request("DELETE", unknown)).status == 404


async def test_every_budget_is_listed_and_narrowed(acme: Control) -> None:
    await acme.ok("POST", "clients", {"name": "other"})
    await acme.ok("POST", "domains", {"domain": "example.org", "client": "other"})
    await acme.ok("POST", "mailboxes", {"email_address": "z@example.org", "daily_send_limit": None})
    await acme.ok("PATCH", "clients/acme", {"daily_send_limit": 100, "bulk_reserve_percent": 10})
    await acme.ok("PATCH", "domains/example.com", {"own_daily_limit": 40})
    await acme.ok("PATCH", "mailboxes/a@example.com", {"is_paced": True})
    await acme.ok("PATCH", "upstreams/out/quotas", {"daily_limit": 900})
    await acme.ok("PATCH", "upstreams/out/quotas", {"mailbox": "a@example.com", "hourly_limit": 8})
    ours = [
        ("client_day", "acme"),
        ("domain_day", "example.com"),
        ("mailbox_day", "a@example.com"),
        ("mailbox_hour", "a@example.com"),
    ]
    theirs, whole, of_a = (
        ("mailbox_day", "z@example.org"),
        ("provider_day", "out"),
        ("provider_hour", "out a@example.com"),
    )
    for query, expected in (
        ({}, [*ours[:3], theirs, ours[3], whole, of_a]),
        ({"mailbox": "a@example.com"}, [*ours, whole, of_a]),
        ({"mailbox": "z@example.org"}, [theirs, whole]),
        ({"domain": "example.com"}, [*ours[1:], of_a]),
        ({"client": "acme"}, [*ours, of_a]),
        ({"client": "other"}, [theirs]),
        ({"upstream": "out"}, [whole, of_a]),
        ({"upstream": "out", "client": "acme"}, [of_a]),
    ):
        items = (await acme.ok("GET", "limits", params=query))["items"]
        assert [(item["kind"], item["whose"]) for item in items] == expected, query
    assert (await acme.request("GET", "limits", params={"client": "zz"})).status == 404
    ran = await acme.cli("limits", "--mailbox", "a@example.com")
    first = ran.out.splitlines()[1]
    assert first.split()[:6] == ["client", "a", "day", "acme", "100", "90"], ran.err
    assert "the hour" in ran.out and "any 60 minutes" in ran.out


async def test_a_credentials_class_and_deadline(acme: Control) -> None:
    added = await acme.cli(
        *("credential", "add", "app", "--client", "acme", "--class", "bulk", "--refuse-after", "1h30m")
    )
    assert added.code == 0, added.err
    shown = lines((await acme.cli("credential", "show", "app")).out)
    assert (shown["class"], shown["refuses what leaves after"]) == ("bulk", "1 h 30 min")
    changed = await acme.cli("credential", "set", "app", "--class", "mailbox", "--refuse-after", "never")
    assert changed.code == 0, changed.err
    credential = await acme.ok("GET", "credentials/app")
    assert (credential["mail_class"], credential["refuse_after_seconds"]) == (None, None)
    kept = await acme.ok("PATCH", "credentials/app", {"refuse_after": "2d"})
    assert (kept["credential"]["refuse_after_seconds"], kept["credential"]["is_active"]) == (172_800, True)
    for bad in ("0s", "366d", "-5m", "yesterday", "2020-01-01T00:00:00Z"):
        answer = await acme.request("PATCH", "credentials/app", {"refuse_after": bad, "is_active": False})
        assert answer.status == 422 and answer.message.startswith("refuse_after: "), bad
    assert (await acme.ok("GET", "credentials/app"))["is_active"] is True


BAD: list[tuple[dict[str, Any], str]] = [
    ({"daily_send_limit": -1}, "daily_send_limit"),
    ({"daily_send_limit": 2**31}, "daily_send_limit"),
    ({"daily_send_limit": 1.5}, "daily_send_limit"),
    ({"time_zone": "Mars/Olympus"}, "there is no time zone Mars/Olympus"),
    ({"time_zone": "XYZ5"}, "there is no time zone XYZ5"),
    ({"limit_window": "weekly"}, "limit_window"),
    ({"bulk_reserve_percent": -1}, "bulk_reserve_percent"),
    ({"bulk_reserve_percent": 101}, "bulk_reserve_percent"),
]
PATHS: dict[str, dict[str, str]] = {
    "clients/acme": {},
    "domains/example.com": {"daily_send_limit": "own_daily_limit"},
    "mailboxes/a@example.com": {},
    "upstreams/out/quotas": {"daily_send_limit": "daily_limit"},
}


@pytest.mark.parametrize("path", PATHS)
async def test_bad_values_are_refused_whole(acme: Control, path: str) -> None:
    good = {"clients/acme": "tier", "domains/example.com": "status", "mailboxes/a@example.com": "display_name"}
    harmless: dict[str, Any] = {"tier": "Dominance", "status": "suspended", "display_name": "Ann", "hourly_limit": 5}
    extra = good.get(path, "hourly_limit")
    before = await acme.ok("GET", path)
    for body, text in BAD:
        (name,) = body
        if name == "bulk_reserve_percent" and path.startswith(("domains", "mailboxes")):
            continue  # theirs is the client's
        named = PATHS[path].get(name, name)
        sent = {named: next(iter(body.values())), extra: harmless[extra]}
        answer = await acme.request("PATCH", path, sent)
        assert answer.status == 422, (body, answer.text)
        assert text.replace(name, named) in answer.message, answer.message
    assert await acme.ok("GET", path) == before


async def test_a_quota_without_any_limit_is_refused(acme: Control) -> None:
    for body in ({}, {"bulk_reserve_percent": 10}, {"mailbox": "a@example.com"}, {"daily_limit": None}):
        answer = await acme.request("PATCH", "upstreams/out/quotas", body)
        assert answer.status == 422, body
    assert (await acme.ok("GET", "upstreams/out/quotas")) == {"items": []}


async def test_another_name_leaves_parked_lanes_parked(acme: Control) -> None:
    await acme.ok("PATCH", "clients/acme", {"daily_send_limit": 5})
    await acme.ok("PATCH", "domains/example.com", {"own_daily_limit": 5})
    parked = "SELECT count(*) FROM mailbox_lanes WHERE blocked_reason = 'quota'"
    async with acme.db.connection() as connection:
        await connection.execute("UPDATE mailbox_lanes SET blocked_until = '2199-01-01', blocked_reason = 'quota'")
        await acme.ok("PATCH", "clients/acme", {"tier": "Velocity", "daily_send_limit": 5})
        await acme.ok("PATCH", "domains/example.com", {"default_mailbox": "a@example.com", "own_daily_limit": 5})
        await acme.ok("PATCH", "mailboxes/a@example.com", {"mail_class": "bulk"})
        assert await connection.fetchval(parked) == 3
        await acme.ok("PATCH", "clients/acme", {"daily_send_limit": 6})
        assert await connection.fetchval(parked) == 0


async def test_wrong_words_on_the_command_line(acme: Control) -> None:
    for argv, code, text in (
        (("client", "set", "acme", "--limit-window", "weekly"), 2, "weekly"),
        (("domain", "set", "example.com", "--daily-limit", "-3"), 1, "own_daily_limit"),
    ):
        ran = await acme.cli(*argv)
        assert ran.code == code and text in ran.err, (argv, ran)
