"""The Maildir that development mode delivers to: a real mail reader must be able to open it."""

import asyncio
import errno
import mailbox
import os
from pathlib import Path

import pytest

from relayd.rules.outcome import Deferred, Scope, Sent, Stage, Uncertain
from relayd.upstream.capture import Capture
from tests.peers.mail import CONTENT, QUEUE_ID, transmission


async def test_a_message_is_one_file_with_its_envelope_on_top(tmp_path: Path) -> None:
    capture = Capture(tmp_path / "state" / "Maildir")
    outcomes = await capture.deliver(transmission("one@example.net", "two@example.net"))
    await capture.close()

    (file,) = (tmp_path / "state" / "Maildir" / "new").iterdir()
    assert file.read_bytes() == (
        b"Return-Path: <app@example.org>\n"
        b"X-Original-To: one@example.net\nDelivered-To: one@example.net\n"
        b"X-Original-To: two@example.net\nDelivered-To: two@example.net\n"
    ) + CONTENT.replace(b"\r\n", b"\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert str(QUEUE_ID) in file.name
    assert [type(outcome) for outcome in outcomes] == [Sent, Sent]
    assert isinstance(outcomes[0], Sent)
    assert outcomes[0].provider_message_id == file.name
    assert sorted(path.name for path in (tmp_path / "state" / "Maildir").iterdir()) == ["cur", "new", "tmp"]
    assert list((tmp_path / "state" / "Maildir" / "tmp").iterdir()) == []


async def test_a_mail_reader_opens_it(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    await capture.deliver(transmission(reverse_path=None, content="Subject: é\r\n\r\né".encode()))
    (message,) = mailbox.Maildir(tmp_path)
    assert message["Return-Path"] == "<>"
    assert message["Delivered-To"] == "one@example.net"
    assert message.get_payload(decode=True) == "é".encode()


async def test_the_same_message_twice_makes_two_files(tmp_path: Path) -> None:
    capture = Capture(tmp_path, wall_clock=lambda: 1_800_000_000.25)
    await asyncio.gather(*(capture.deliver(transmission()) for _ in range(20)))
    assert len(list((tmp_path / "new").iterdir())) == 20


async def test_a_place_that_cannot_be_written_defers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    outcomes = await Capture(tmp_path / "file" / "Maildir").deliver(transmission("a@example.net", "b@example.net"))
    for outcome in outcomes:
        assert isinstance(outcome, Deferred)
        assert outcome.scope is Scope.UPSTREAM
        assert "Not a directory" in outcome.cause.text


async def test_a_full_disk_defers_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    (outcome,) = await Capture(tmp_path).deliver(transmission())
    assert isinstance(outcome, Deferred)
    assert (outcome.scope, outcome.cause.text) == (Scope.UPSTREAM, "No space left on device")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_directory_that_cannot_be_synced_leaves_a_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fsync = os.fsync

    def fails_for_directories(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_for_directories)
    (outcome,) = await Capture(tmp_path).deliver(transmission())
    assert isinstance(outcome, Uncertain)
    assert outcome.cause.stage is Stage.DOT
