"""The audit trail over the control socket."""

import getpass
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.conftest import Control


@pytest.fixture
async def busy(control: Control) -> Control:
    await control.ok("POST", "clients", {"name": "acme"})
    await control.ok("PATCH", "clients/acme", {"status": "suspended"})
    await control.ok("POST", "upstreams", {"name": "out", "provider": "capture", "directory": "/m"})
    await control.ok("DELETE", "upstreams/out")
    return control


async def test_it_says_who_changed_what_the_newest_first(busy: Control) -> None:
    items = (await busy.ok("GET", "audit"))["items"]
    assert [(item["table"], item["action"], item["row"]) for item in items] == [
        ("email_configurations", "update", "out"),
        ("email_configurations", "insert", "out"),
        ("clients", "update", "acme"),
        ("clients", "insert", "acme"),
    ]
    assert {item["actor"] for item in items} == {f"{getpass.getuser()}({os.getuid()})"}
    assert items[2]["changes"] == [{"column": "status", "before": "active", "after": "suspended"}]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"table": "client"}, 2),
        ({"table": "email_configurations"}, 2),
        ({"row": "acme"}, 2),
        ({"row": "nothing"}, 0),
        ({"actor": getpass.getuser()}, 4),
        ({"actor": f"{getpass.getuser()}({os.getuid()})"}, 4),
        ({"actor": "mallory"}, 0),
        ({"limit": "1"}, 1),
        ({"since": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, 0),
        ({"since": "2020-01-01T00:00:00Z"}, 4),
    ],
)
async def test_it_can_be_narrowed(busy: Control, query: dict[str, str], count: int) -> None:
    assert len((await busy.ok("GET", "audit", params=query))["items"]) == count


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "many"},
        {"since": "yesterday"},
        {"since": "2020-01-01T00:00:00"},
        {"row": "a\u0000b"},
        {"colour": "red"},
        [("row", "a"), ("row", "b")],
    ],
)
async def test_bad_filters_are_refused(control: Control, query: Any) -> None:
    assert (await control.request("GET", "audit", params=query)).status == 422


async def test_the_command_line_lists_it(busy: Control) -> None:
    ran = await busy.cli("audit", "list", "--table", "client", "--since", "1h")
    lines = ran.out.splitlines()
    assert len(lines) == 3 and "status: active -> suspended" in lines[1], ran.err
    assert (await busy.cli("audit", "list", "--since", "2h", "--row", "zz")).out == ""
    assert (await busy.cli("audit", "list", "--since", "whenever")).code == 1
