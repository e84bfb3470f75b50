"""Programs of others that end-to-end tests need."""

import os
import shutil

import pytest


def require(*programs: str) -> None:
    """Skip the test where one is missing; with RELAYD_REQUIRE_PEERS=1, as in CI, fail it."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("RELAYD_REQUIRE_PEERS") == "1":
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
