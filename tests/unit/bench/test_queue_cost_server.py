"""Where a measurement would be untrue, it is refused."""

from pathlib import Path

import pytest

from bench.queue_cost import __main__ as program
from bench.queue_cost import server
from relayd.errors import RelaydError

MOUNTS = """/dev/vda / ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/vdb /run/disk xfs rw 0 0
tmpfs /running tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/var/tmp", "ext4"), ("/run/x", "tmpfs"), ("/run/disk/x", "xfs"), ("/running", "tmpfs"), ("/runner", "ext4")],
)
def test_the_file_system_is_that_of_the_longest_mount_above_the_path(path, expected):
    assert server.file_system(Path(path), MOUNTS) == expected


def test_a_disk_that_is_too_small_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "file_system", lambda *_: "ext4")
    with pytest.raises(RelaydError, match="--largest"), server.own_server(tmp_path, octets=1 << 60, major=None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_memory_is_refused_as_a_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "file_system", lambda *_: "tmpfs")
    with pytest.raises(RelaydError, match="--scratch"), server.own_server(tmp_path, octets=0, major=None):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["run", "--dsn", "x"], ["--dsn=postgresql://db/prod"], ["postgresql://db/prod"]])
def test_a_dsn_is_refused(arguments, capsys):
    assert program.main(arguments) == 2
    assert "starts itself" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--largest", "100000000"], ["--rounds", "999"], ["--growth", "99999999999"]])
def test_a_run_without_bounds_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        program.main(arguments)
    assert "is not between" in capsys.readouterr().err
