"""What is answered 250 arrives, whoever is killed."""

import os
import signal
import smtplib
import threading
import time
from pathlib import Path

from relayd.embedded import EmbeddedPostgres
from tests.conftest import at_length
from tests.e2e.conftest import furnish
from tests.e2e.house import House, is_alive, wait_until
from tests.e2e.mail import send
from tests.peers.sink import Sink


def test_worker_killed_between_250_and_delivery_delivers_after_restart(house: House, sink: Sink) -> None:
    house.start()
    furnish(house, sink.port)
    house.run("pause", "everything", "--reason", "test")
    for number in range(20):
        send(house, [f"user{number}@example.net"])
    before = house.worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(set(house.worker_pids()) - set(before)) == 2, what="new workers")
    house.run("resume", "everything")
    wait_until(lambda: len(sink.recipients) == 20, what="20 arrivals")
    assert set(sink.recipients.values()) == {1}


def test_worker_killed_in_an_attempt_records_the_doubt_and_tries_again(house: House, sink: Sink) -> None:
    sink.delay_seconds = 5
    house.settings["delivery"]["first_retry_seconds"] = 0.2
    house.write_config()
    house.start()
    furnish(house, sink.port)
    queue_id = send(house, ["you@example.net"])
    wait_until(lambda: "sending" in house.run("queue", "show", queue_id).stdout, what="the attempt")
    sink.delay_seconds = 0
    for pid in house.worker_pids():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "sent" in {e["status"] for e in house.json("queue", "show", queue_id)["entries"]}, what="sent")
    assert "uncertain" in house.run("explain", queue_id).stdout


def test_killed_supervisor_leaves_no_orphan_and_starts_again_at_once(house: House, sink: Sink) -> None:
    house.start()
    furnish(house, sink.port)
    workers = house.worker_pids()
    house.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), seconds=5, what="no orphan")
    house.start()
    send(house, ["you@example.net"])
    wait_until(lambda: len(sink.arrivals) == 1, what="an arrival")


def test_postgres_stopped_under_load_refuses_for_now_and_loses_nothing(
    house_on_own_postgres: House, own_postgres: EmbeddedPostgres, sink: Sink
) -> None:
    house = house_on_own_postgres
    house.start()
    furnish(house, sink.port)
    acknowledged: list[str] = []
    replies: list[int] = []
    told: set[bytes] = set()
    stop = threading.Event()

    def load(thread: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            recipient = f"t{thread}n{number}@example.net"
            try:
                with smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30) as client:
                    client.sendmail("app@example.com", [recipient], "From: app@example.com\r\nSubject: x\r\n\r\nhi\r\n")
                    acknowledged.append(recipient)
            except smtplib.SMTPResponseException as error:
                replies.append(error.smtp_code)
                told.add(error.smtp_error)
                time.sleep(0.05)
            except smtplib.SMTPRecipientsRefused as error:
                replies.extend(code for code, _ in error.recipients.values())
                time.sleep(0.05)
            except (OSError, smtplib.SMTPException):
                time.sleep(0.05)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) > 50, what="some mail")
    own_postgres.stop()
    wait_until(lambda: len(replies) > 20, what="refusals")
    own_postgres.start()
    count = len(acknowledged)
    wait_until(lambda: len(acknowledged) > count + 50, what="mail again")
    stop.set()
    for thread in threads:
        thread.join()
    assert set(replies) == {451}
    assert not any(b"ostgres" in text for text in told)
    wait_until(lambda: set(acknowledged) <= set(sink.recipients), seconds=60, what="all that was acknowledged")
    assert house.stop() == 0


@at_length
def test_a_worker_that_dies_while_postgres_is_away_is_replaced_and_the_daemon_still_stops(
    house_on_own_postgres: House, own_postgres: EmbeddedPostgres
) -> None:
    house = house_on_own_postgres
    house.start()
    before = house.worker_pids()
    own_postgres.stop()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(set(house.worker_pids()) - set(before)) == 2, what="new workers")
    house.stop(20)


@at_length
def test_killed_supervisor_takes_along_a_worker_that_has_only_just_begun(house: House, sink: Sink) -> None:
    house.start()
    before = house.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    (successor,) = wait_until(lambda: set(house.worker_pids()) - set(before), what="a successor", every=0.001)
    command = Path(f"/proc/{successor}/cmdline")
    wait_until(lambda: b"relayd.daemon.worker" in command.read_bytes(), what="its own program", every=0.001)
    # It holds the listening sockets from its first moment, and cannot hear of anything for most of a second.
    os.kill(successor, signal.SIGSTOP)
    try:
        house.kill()
        wait_until(lambda: not is_alive(successor), seconds=5, what="no orphan")
    finally:
        if is_alive(successor):
            os.kill(successor, signal.SIGKILL)
    house.start()
