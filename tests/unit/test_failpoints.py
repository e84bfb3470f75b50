"""Failpoints kill whom they are told to, when they are told to, and nobody else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

VISITS = """
from relayd import failpoints
for visit in range(1, 6):
    print(visit, flush=True)
    failpoints.reach("here")
    failpoints.reach("there")
"""
SOON = """
import asyncio
from relayd import failpoints
async def main():
    failpoints.reach_soon("here")
    print("sent", flush=True)
    await asyncio.sleep(0.1)
    print("heard", flush=True)
asyncio.run(main())
"""


def _run(program: str, armed: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "RELAYD_FAILPOINTS": armed}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)


def test_unarmed_is_inert() -> None:
    assert _run(VISITS, "").stdout.split() == list("12345")
    assert _run(VISITS, "elsewhere").stdout.split() == list("12345")


def test_dies_at_the_visit_that_was_named() -> None:
    result = _run(VISITS, "elsewhere,here:3")
    assert (result.returncode, result.stdout.split()) == (-signal.SIGKILL, list("123"))
    assert _run(VISITS, "here").stdout.split() == ["1"]


def test_soon_is_after_what_is_sent_and_before_its_answer() -> None:
    result = _run(SOON, "here")
    assert (result.returncode, result.stdout.split()) == (-signal.SIGKILL, ["sent"])


def test_another_process_gets_the_signal_and_is_gone_before_the_next_step(tmp_path: Path) -> None:
    victim = subprocess.Popen(["sleep", "60"])
    (tmp_path / "pid").write_text(f"{victim.pid}\nmore lines\n")
    watched = VISITS.replace("print(visit", f"print(open('/proc/{victim.pid}/stat').read().split()[2]")
    assert _run(watched, f"here:2:TERM:{tmp_path}/pid").stdout.split() == list("SSZZZ")
    assert victim.wait() == -signal.SIGTERM


def test_a_victim_that_is_not_there_does_no_harm(tmp_path: Path) -> None:
    assert _run(VISITS, f"here:1:KILL:{tmp_path}/none").stdout.split() == list("12345")
