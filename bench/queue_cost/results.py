"""The raw figures of a run, kept beside the page that is made of them, so that it can be drawn anew."""

import json
import os
import platform
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "QUEUE.json"


def write(results: dict[str, Any], file: Path = FILE) -> None:
    """Whole or not at all: a run that is stopped leaves what the last one wrote, or what it has so far."""
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    fresh.replace(file)


def read(file: Path = FILE) -> dict[str, Any]:
    """As written."""
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def machine() -> dict[str, Any]:
    """What it ran on; no name of it."""
    return {
        "cpu": _first(Path("/proc/cpuinfo"), "model name"),
        "cores": os.cpu_count(),
        "memory_gib": round(int(_first(Path("/proc/meminfo"), "MemTotal").split()[0]) / (1 << 20)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _first(file: Path, key: str) -> str:
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"
