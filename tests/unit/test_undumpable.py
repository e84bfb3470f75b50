"""A process keeps its memory to itself, unless somebody asks for it to be left open."""

import os
import resource
import subprocess
import sys

import pytest

LOOK = """
import ctypes, resource
from relayd.undumpable import close_memory
close_memory()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0] == 0)
"""


@pytest.mark.parametrize(("override", "seen"), [("", "0 True"), ("1", "1 False")])
def test_memory_is_closed_unless_it_is_to_be_looked_at(override: str, seen: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard == 0:
        pytest.skip("this process may make no cores itself")
    result = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**os.environ, "RELAYD_DUMPABLE": override},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == seen
