"""What the bench may be asked for."""

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.options import HERE, parse


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--address", "192.0.2.1"], "192.0.2.1"),
        (["--count", "0"], "--count 0"),
        (["--count", "100001"], "--count 100001"),
        (["--rounds", "0"], "--rounds 0"),
        (["--rounds", "21"], "--rounds 21"),
        (["--connections", "101"], "--connections 101"),
        (["--connections", "50", "--connections", "0"], "--connections 0"),
        (["--octets", "1023"], "--octets 1023"),
        (["--octets", "10000001"], "--octets 10000001"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(arguments: list[str], named: str) -> None:
    with pytest.raises(BenchError) as refused:
        parse(arguments)
    assert named in str(refused.value)


def test_an_unknown_system_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--only", "sendmail"])
    assert "postfix-rspamd" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--address", "::1"], ["--draw"]])
def test_a_whole_run_is_kept_in_the_repository(arguments: list[str]) -> None:
    assert parse(arguments).results == HERE


@pytest.mark.parametrize(
    "arguments", [["--short"], ["--only", "relayd"], ["--rounds", "1"], ["--count", "9"], ["--sessions", "new"]]
)
def test_less_than_a_whole_run_does_not_replace_the_results_of_one(arguments: list[str]) -> None:
    assert parse(arguments).results is None
    assert parse([*arguments, "--results", "elsewhere"]).results == Path("elsewhere")
