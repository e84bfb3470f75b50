"""Suppression lists by HTTP and by command line."""

import csv
import io
from pathlib import Path

import pytest

from relayd.cli import suppression_files
from relayd.store import directory
from tests.integration.conftest import Control

LIST = "clients/acme/suppressions"


@pytest.fixture
async def acme(control: Control) -> Control:
    for name in ("acme", "rival"):
        await control.ok("POST", "clients", {"name": name})
    return control


async def test_an_address_is_added_listed_and_removed(acme: Control) -> None:
    ran = await acme.cli("suppression", "add", "You@Example.NET", "--client", "acme", "--detail", "asked by phone")
    assert (ran.code, ran.out) == (0, "you@example.net is suppressed for client acme\n")
    assert "relayd queue list --recipient you@example.net" in ran.err
    added = await acme.ok("POST", LIST, {"address": "a@example.org", "days": 7})
    assert (added["reason"], added["entry_id"]) == ("manual", None) and added["expires_at"]
    page = await acme.ok("GET", LIST, params={"limit": 1})
    assert [each["address"] for each in page["items"]] == ["a@example.org"]
    rest = await acme.ok("GET", LIST, params={"cursor": page["cursor"], "limit": 2})
    assert [(each["address"], each["detail"]) for each in rest["items"]] == [("you@example.net", "asked by phone")]
    assert rest["cursor"] is None
    for query, found in (
        ({"domain": "example.net"}, ["you@example.net"]),
        ({"reason": "hard_bounce"}, []),
        ({"reason": "manual"}, ["a@example.org", "you@example.net"]),
    ):
        answer = await acme.ok("GET", LIST, params=query)
        assert [each["address"] for each in answer["items"]] == found
    assert (await acme.ok("GET", "clients/rival/suppressions"))["items"] == []
    assert (await acme.ok("DELETE", f"{LIST}/YOU@example.net")) == {"address": "you@example.net"}
    ran = await acme.cli("suppression", "list", "--client", "acme")
    assert "a@example.org" in ran.out and "you@" not in ran.out
    audit = await acme.ok("GET", "audit", params={"table": "suppression"})
    deeds = [(each["row"], each["changes"][0]["after"]) for each in audit["items"]]
    assert [row for row, _ in deeds] == ["remove", "add", "add"]


async def test_what_is_wrong_is_said_with_what_to_do(acme: Control) -> None:
    for method, path, body, text in (
        ("POST", LIST, {"address": "nobody"}, "address: address has no domain"),
        ("POST", "clients/nobody/suppressions", {"address": "a@example.net"}, "there is no client nobody"),
        ("POST", LIST, {"address": "a@example.net", "days": 0}, "days: should be greater than or equal to 1"),
        ("DELETE", f"{LIST}/a@example.net", None, "relayd suppression list --client acme --domain example.net"),
        ("POST", f"{LIST}/import", {"items": [{"address": "a@b@c"}]}, "items.0.address: malformed local part"),
    ):
        answer = await acme.request(method, path, body)
        assert answer.status in (404, 422) and text in answer.message, answer.message
    for argv, text in (
        (("import", "/nowhere/list.csv", "--client", "acme"), "cannot read /nowhere/list.csv: No such file"),
        (("import", "-", "--client", "nobody"), "there is no client nobody"),
    ):
        ran = await acme.cli("suppression", *argv, stdin="a@example.net\n")
        assert ran.code == 1 and text in ran.err, ran.err


async def test_a_list_is_imported_and_comes_out_again(acme: Control, tmp_path: Path) -> None:
    lines = [f"user{number}@example.net" for number in range(2_500)]
    text = "\ufeff" + "\r\n".join([*lines, "", "no address", "USER7@example.net", "two@@example.net"]) + "\r\n"
    ran = await acme.cli("suppression", "import", "-", "--client", "acme", stdin=text)
    assert ran.out == "2,500 new, 1 known already, 0 expired, 2 bad lines\n"
    assert ran.code == 1
    assert "line 2502: address has no domain" in ran.err and "line 2504: malformed local part" in ran.err
    exported = await acme.cli("suppression", "export", "--client", "acme")
    rows = list(csv.DictReader(io.StringIO(exported.out)))
    assert sorted(row["address"] for row in rows) == sorted(lines) and {row["reason"] for row in rows} == {"import"}
    file = tmp_path / "list.csv"
    file.write_text(exported.out)
    ran = await acme.cli("suppression", "import", str(file), "--client", "rival")
    assert (ran.code, ran.out) == (0, "2,500 new, 0 known already, 0 expired, 0 bad lines\n")
    ran = await acme.cli("suppression", "import", str(file), "--client", "rival")
    assert (ran.code, ran.out) == (0, "0 new, 2,500 known already, 0 expired, 0 bad lines\n")


async def test_columns_of_other_peoples_files_are_found(acme: Control, tmp_path: Path) -> None:
    file = tmp_path / "foreign.csv"
    file.write_bytes(
        b"Name,E-Mail,reason,expires_at\n"
        b'"Ann, of course",ann@example.net,Complaint,\n'
        b"Bob,bob@example.net,,2099-12-31\n"
        b"Old,old@example.net,,2001-01-01T00:00:00Z\n"
        b"Bad,bad@example.net,boredom,\n"
        b"Bad,bad@example.net,,soon\n"
        b"J\xf6rg,joerg@example.net,,\n"
        b"Short\n"
    )
    ran = await acme.cli("suppression", "import", str(file), "--client", "acme")
    assert ran.out == "2 new, 0 known already, 1 expired, 4 bad lines\n"
    for text in ("line 5: the reason is none of hard_bounce", "line 6: expires_at is no time", "line 7: not UTF-8",
                 "line 8: address has no domain"):  # fmt: skip
        assert text in ran.err
    found = (await acme.ok("GET", LIST))["items"]
    assert [(each["address"], each["reason"], each["expires_at"]) for each in found] == [
        ("ann@example.net", "complaint", None),
        ("bob@example.net", "import", "2099-12-31T00:00:00Z"),
    ]


def test_a_batch_is_never_more_than_the_socket_takes() -> None:
    line = "x" * 60 + "@" + "y" * 60 + "." + "z" * 60 + ".example.net,," + "\u00fc" * 255 + "\n"
    found = list(suppression_files.batches(io.StringIO("address,reason,detail\n" + line * 1_000)))
    assert sum(len(batch.items) for batch in found) == 1_000 and not any(batch.bad for batch in found)
    assert len(found) > 1 and all(len(str(batch.items)) < 1 << 20 for batch in found)


async def test_a_client_says_how_it_is_told_and_what_is_dropped(acme: Control) -> None:
    argv = ("--bounces", "both", "--suppressed", "drop", "--suppression-days", "7")
    ran = await acme.cli("client", "set", "acme", *argv)
    assert ran.code == 0, ran.err
    shown = await acme.cli("client", "show", "acme")
    for text in ("bounces are told by    both", "suppressed recipients  are dropped", "a hard bounce counts   7 days"):
        assert text in shown.out, shown.out
    assert "several To or Cc       are refused" in shown.out
    assert (await acme.cli("client", "set", "acme", "--repeated-recipients", "join")).code == 0
    assert "several To or Cc       are joined" in (await acme.cli("client", "show", "acme")).out
    assert "others' Sender fields  are refused" in (await acme.cli("client", "show", "acme")).out
    assert (await acme.cli("client", "set", "acme", "--foreign-senders", "remove")).code == 0
    assert "others' Sender fields  are removed" in (await acme.cli("client", "show", "acme")).out
    async with acme.db.connection() as connection:
        client = await directory.find_client(connection, "acme")
    assert client and client.joins_recipients and client.removes_foreign_senders
    changed = await acme.ok("PATCH", "clients/acme", {"suppression_days": None})
    assert (changed["suppression_days"], changed["bounces"], changed["suppressed"]) == (None, "both", "drop")
    assert (await acme.request("PATCH", "clients/acme", {"bounces": "fax"})).status == 422
    audit = await acme.ok("GET", "audit", params={"table": "client", "row": "acme", "limit": 4})
    assert {each["column"] for each in audit["items"][3]["changes"]} == {"bounces", "suppressed", "suppression_days"}
