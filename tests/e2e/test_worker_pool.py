"""Workers that cannot start, hang, or are killed: the node says so, replaces them, and never waits for ever."""

import os
import resource
import signal
import smtplib
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import at_length
from tests.e2e.house import House, is_alive, wait_until
from tests.e2e.reloading import NEW_SIZE, greeting, hang_up, reload


def readiness(house: House) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{house.http_port}/readyz", timeout=30) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())


def limit_files(house: House, spare: int | None, *, worker: int | None = None) -> None:
    """Leave the supervisor (or a worker) so many file descriptors beside those it has; None lifts the limit."""
    assert house.process
    pid = worker or house.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    soft = hard if spare is None else len(os.listdir(f"/proc/{pid}/fd")) + spare
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def wait_for_workers(house: House, count: int) -> None:
    wait_until(lambda: house.metric("relayd_workers") == count, what=f"{count} workers", seconds=60)


@pytest.mark.parametrize("spare", [0, 1])
def test_a_worker_that_cannot_start_is_tried_again_until_it_can(house: House, spare: int) -> None:
    house.start()
    wait_for_workers(house, 2)
    # The metrics page, too, needs files: it is asked again when there are some.
    limit_files(house, spare)
    os.kill(house.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: "end=not_started" in house.log_text(), what="a start that fails")
    assert "it was killed by SIGKILL" in house.log_text()
    assert "its process cannot be started: Too many open files" in house.log_text()
    limit_files(house, None)
    wait_for_workers(house, 2)
    assert house.metric('relayd_worker_restarts_total{end="not_started"}') >= 1
    assert house.metric('relayd_worker_restarts_total{end="signal"}') == 1
    reload(house, max_message_octets=NEW_SIZE)
    assert "reloaded" in house.log_text()
    assert house.stop() == 0


def test_a_reload_whose_workers_cannot_start_is_refused_and_changes_nothing(small_house: House) -> None:
    small_house.start()
    workers = small_house.worker_pids()
    small_house.settings["submission"] |= {"max_message_octets": NEW_SIZE}
    small_house.write_config()
    limit_files(small_house, 2)
    hang_up(small_house)
    limit_files(small_house, None)
    assert "reload refused" in small_house.log_text()
    assert small_house.worker_pids() == workers
    assert greeting(small_house)[0] == "26214400"
    hang_up(small_house)
    wait_until(lambda: greeting(small_house)[0] == str(NEW_SIZE), what="the new settings")
    assert small_house.stop() == 0


def test_a_node_whose_workers_cannot_start_still_stops(small_house: House) -> None:
    small_house.start()
    limit_files(small_house, 1)
    os.kill(small_house.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: "end=not_started" in small_house.log_text(), what="a start that fails")
    assert small_house.stop() == 0


def test_a_worker_without_a_file_for_a_connection_says_so_once_and_serves_on(small_house: House) -> None:
    small_house.start()
    (worker,) = small_house.worker_pids()
    limit_files(small_house, 5, worker=worker)
    apps = [socket.create_connection(("127.0.0.1", small_house.smtp_port)) for _ in range(30)]
    wait_until(lambda: "connections wait" in small_house.log_text(), what="a log line that says so")
    logged = len(small_house.log_text())
    time.sleep(2)  # some tries later
    assert small_house.log_text().count("connections wait") == 1
    assert len(small_house.log_text()) - logged < 2000
    for app in apps[:10]:
        app.close()
    limit_files(small_house, None, worker=worker)
    for app in apps[10:]:
        app.settimeout(30)
        assert app.recv(100).startswith(b"220 ")
        app.close()
    wait_until(lambda: "connections are accepted again" in small_house.log_text(), what="a log line that says so")
    assert "OSError" not in small_house.log_text()
    assert small_house.stop() == 0


@at_length
def test_workers_that_hang_are_not_ready_and_are_replaced(house: House) -> None:
    house.start()
    wait_for_workers(house, 2)
    hung = house.worker_pids()
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: "no worker is ready" in readiness(house), what="readiness that says so")
    wait_until(lambda: not any(map(is_alive, hung)), what="their end", seconds=60)
    wait_for_workers(house, 2)
    assert "ready" in readiness(house)
    assert house.metric('relayd_worker_restarts_total{end="silent"}') == 2
    assert "its event loop has stood still" in house.log_text()
    with smtplib.SMTP("127.0.0.1", house.smtp_port, timeout=30) as app:
        assert app.ehlo("app.example.com")[0] == 250
    assert house.stop() == 0


@at_length
def test_a_supervisor_that_stood_still_kills_no_worker(house: House) -> None:
    house.start()
    wait_for_workers(house, 2)
    workers = house.worker_pids()
    assert house.process
    house.process.send_signal(signal.SIGSTOP)
    time.sleep(30)
    house.process.send_signal(signal.SIGCONT)
    time.sleep(5)
    assert house.worker_pids() == workers
    wait_for_workers(house, 2)


@at_length
def test_the_watchdog_is_fed_only_while_a_worker_lives(small_house: House) -> None:
    small_house.start(WATCHDOG_USEC="3000000")
    assert small_house.process
    assert small_house.notifications.wait_for("WATCHDOG=1", 10, small_house.process)
    limit_files(small_house, 1)
    os.kill(small_house.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: not small_house.worker_pids(), what="no worker")
    while small_house.notifications.wait_for("WATCHDOG=1", 0.5, small_house.process):
        pass
    assert not small_house.notifications.wait_for("WATCHDOG=1", 5, small_house.process)
    limit_files(small_house, None)
    assert small_house.notifications.wait_for("WATCHDOG=1", 30, small_house.process)


@at_length
def test_a_log_that_nobody_reads_stops_no_mail(small_house: House) -> None:
    """As journald does that hangs: the reader of the log's pipe stands still."""
    small_house.log.unlink(missing_ok=True)
    os.mkfifo(small_house.log)
    reading = os.open(small_house.log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        small_house.settings["log"] = {"level": "debug"}
        small_house.write_config()
        small_house.start()
        small_house.run("client", "add", "acme")  # its network is trusted: nobody slows down its refusals
        for _ in range(3000):
            with smtplib.SMTP("127.0.0.1", small_house.smtp_port, timeout=30) as app:
                app.ehlo("app.example.com")
                for number in range(19):
                    app.docmd(f"MAIL FROM:<{'x' * 200}{number}>")
            if small_house.metric("relayd_log_lines_dropped_total"):
                break
        assert small_house.metric("relayd_log_lines_dropped_total") > 0
        assert "ready" in readiness(small_house)
    finally:
        os.close(reading)
    assert small_house.stop() == 0
    assert Path(small_house.log).is_fifo()
