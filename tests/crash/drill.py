"""The SIGTERM drill: stopped and started under load, again and again; nothing is lost, doubled or in doubt."""

import random
import subprocess
import time

from tests.crash.kills import CONNECTIONS, RATE, Series
from tests.crash.scene import DRAIN_SECONDS, Scene, mixed

# Past this it is not slow but stuck, and the drill ends.
STUCK_SECONDS = 2 * DRAIN_SECONDS


def sigterm(times: int, dice: random.Random) -> Series:
    """Each must end within `drain_seconds`, with code 0."""
    began = time.monotonic()
    done = 0
    complaints = []
    with Scene() as scene:
        scene.start()
        with scene.load(rate=RATE, connections=CONNECTIONS, recipient=mixed):
            while done < times:
                time.sleep(dice.uniform(0, 1))
                told_at = time.monotonic()
                try:
                    code = scene.house.stop(STUCK_SECONDS)
                except subprocess.TimeoutExpired:
                    complaints.append(f"SIGTERM {done + 1}: did not end within {STUCK_SECONDS:g} s")
                    break
                seconds = time.monotonic() - told_at
                if code != 0 or seconds > DRAIN_SECONDS:
                    complaints.append(f"SIGTERM {done + 1}: ended after {seconds:.1f} s with code {code}")
                done += 1
                scene.start()
        if done == times:
            scene.empty()
        verdict = scene.verdict(nobody_died=True, nothing_lapsed=True)
    return Series("SIGTERM", "supervisor", times, done, verdict, time.monotonic() - began, tuple(complaints))
