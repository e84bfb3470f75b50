"""Fill the disk that Postgres writes to, under load, and make room again."""

import smtplib
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import asyncpg

from tests.crash.ledger import Verdict
from tests.e2e.house import free_port, wait_until
from tests.faults.trial import Trial, trial
from tests.peers.postgres_server import PostgresServer, stop_all
from tests.peers.small_disk import small_disk

MEGABYTES = 200


class Kind(StrEnum):
    """What finds no room."""

    TABLES = "tables"  # Postgres refuses the statement: 53100
    WAL = "wal"  # Postgres crashes, and cannot come back before there is room


@dataclass(frozen=True)
class Filling:
    """One of them. `reply`: what an app was told meanwhile, `was_ready`: what /readyz said; `seconds`: from there being
    room to mail being accepted."""

    kind: Kind
    reply: bytes
    was_ready: bool
    seconds: float


def fillings(
    kinds: list[Kind],
    directory: Path,
    *,
    major: int | None = None,
    rate: float = 100.0,
    **sections: Any,
) -> Iterator[Filling | Verdict]:
    """Each filling as it is over, and last the verdict on all of them. Raises CannotMount."""
    with small_disk(MEGABYTES) as disk:
        server = PostgresServer(disk.path / "state", free_port(), major=major, wal_keep_size="0", max_wal_size="48MB")
        try:
            server.initialise()
            server.start()
            with trial(server.dsn, server.password, directory, rate=rate, **sections) as running:
                for kind in kinds:
                    disk.fill()
                    if kind is Kind.WAL:
                        _use_up_wal(server)
                    running.wait_for_refusals(8)
                    reply = _asked(running)
                    was_ready = running.is_ready()
                    disk.clear()
                    began = time.monotonic()
                    if not server.is_running or kind is Kind.WAL:
                        # As its service manager does, which would see it end.
                        wait_until(
                            lambda: not server.is_running or _answers(server),
                            seconds=60,
                            what="Postgres's end or recovery",
                        )
                        if not server.is_running:
                            server.start()
                    running.wait_for_mail()
                    yield Filling(kind, reply, was_ready, time.monotonic() - began)
                yield running.verdict(server)
        except BaseException as error:
            error.add_note(f"Postgres's log ends:\n{server.log_text[-3000:]}")
            raise
        finally:
            stop_all([server])


def _use_up_wal(server: PostgresServer) -> None:
    """Until a segment must be made and there is no room for it."""
    for _ in range(20):
        try:
            server.execute("SELECT pg_switch_wal(), pg_logical_emit_message(true, 'test', '')", timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return


def _answers(server: PostgresServer) -> bool:
    with suppress(OSError, TimeoutError, asyncpg.PostgresError):
        return bool(server.execute("SELECT 1", timeout=5))
    return False


def _asked(running: Trial) -> bytes:
    """What one more message is told. It has no number of the load's, so it must not be taken."""
    try:
        with smtplib.SMTP("127.0.0.1", running.house.smtp_port, timeout=60) as client:
            client.sendmail("app@example.com", ["one@example.net"], "From: app@example.com\r\n\r\nhi\r\n")
    except smtplib.SMTPRecipientsRefused as error:
        return b"; ".join(b"%d %s" % each for each in error.recipients.values())
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error if isinstance(error.smtp_error, bytes) else error.smtp_error.encode()
        return b"%d %s" % (error.smtp_code, text)
    raise AssertionError("a message was taken while the disk was full")
