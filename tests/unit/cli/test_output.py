"""What commands print."""

import pytest

from relayd.cli import output
from relayd.cli.output import Column, column
from relayd.control.client import Reply

COLUMNS = (column("id", whole=True), column("subject"), column("tags"), column("seen_at", "seen"))


def reply(*rows: dict[str, object]) -> Reply:
    return Reply('{"as":"is"}', {"items": list(rows)})


def row(**values: object) -> dict[str, object]:
    return {"id": "a" * 300, "subject": "hello", "tags": None, "seen_at": "2026-11-21T08:00:00.123456Z"} | values


def test_plain_columns_are_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.items(reply(row(), row(id="b", tags=["x", "y"])), COLUMNS, as_json=False, none="none")
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "SUBJECT", "TAGS", "SEEN"]
    assert first.startswith("a" * 300 + "  hello    -     2026-11-21 08:00:00Z")
    assert second.split()[:3] == ["b", "hello", "x,"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[2Jgone", "\\x1b[2Jgone"), ("a\x00b", "a\\x00b"), ("a\rb", "a\\x0db"), ("\u202eevil", "\\x202eevil")],
)
def test_a_terminal_obeys_nothing_that_is_printed(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.items(reply(row(subject=text)), COLUMNS, as_json=False, none="none")
    output.details(Reply("", row(subject=text)), COLUMNS, as_json=False)
    output.fail(text, text, code=1)
    captured = capsys.readouterr()
    assert text not in captured.out + captured.err
    assert captured.out.count(shown) == 2 and captured.err.count(shown) == 2


def test_json_is_the_servers_own(capsys: pytest.CaptureFixture[str]) -> None:
    output.items(reply(row()), COLUMNS, as_json=True, none="none")
    assert capsys.readouterr().out == '{"as":"is"}\n'


def test_an_empty_list_says_where_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    output.items(reply(), COLUMNS, as_json=False, none="add one")
    assert capsys.readouterr() == ("", "add one\n")


def test_a_terminal_gets_a_table_with_whole_ids(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    columns = (*COLUMNS, column("id", "again", whole=True), Column("n", lambda _: True))
    for width in ("20", "60", "200"):
        monkeypatch.setenv("COLUMNS", width)
        rows = reply(row(id="0198b6d2-7c1e-7000-8000-000000000001", subject="[bold]x[/bold] " * 4))
        output.items(rows, columns, as_json=False, none="none")
        out = capsys.readouterr().out
        assert out.count("0198b6d2-7c1e-7000-8000-000000000001") == 2 and "[bold]x" in out
        assert "…" not in out
