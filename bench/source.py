"""The load generators as a trial starts them: smtp-source where it will do, the bench's own where it cannot."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from bench import process
from bench.generator import Orders
from bench.load import Load
from bench.loopback import endpoint
from bench.message import make_message
from bench.system import RECIPIENT, System

LOG = "source.log"
TIMINGS = "timings.json"


def start_source(directory: Path, address: str, system: System, load: Load) -> "subprocess.Popen[bytes]":
    """Send the load; it ends after the last reply, with 0 if all was taken."""
    message = directory / f"message.{load.octets}"
    message.write_bytes(make_message(system.sender, load.octets))
    if load.generator == "smtp-source":
        arguments = _smtp_source(address, system, load, message)
    else:
        account = system.account() if load.generator == "tls+auth" else {}
        arguments = _own(directory, address, system, load, message, account)
    return process.start(arguments, log=directory / LOG)


def _smtp_source(address: str, system: System, load: Load, message: Path) -> list[str]:
    keep = ["-d"] if load.is_reused else []
    return [
        "/usr/sbin/smtp-source", *keep, "-C", "20", "-s", str(load.connections), "-m", str(load.count),
        "-M", "app.example.com", "-f", system.sender, "-t", RECIPIENT, "-F", str(message),
        endpoint(address, system.port),
    ]  # fmt: skip


def _own(
    directory: Path, address: str, system: System, load: Load, message: Path, account: Mapping[str, str]
) -> list[str]:
    orders = Orders(
        address=address,
        port=system.port,
        sender=system.sender,
        recipient=RECIPIENT,
        message=str(message),
        output=str(directory / TIMINGS),
        count=load.count,
        connections=load.connections,
        is_reused=load.is_reused,
        rate=load.rate,
        **account,
    )
    path = directory / "orders.json"
    path.write_text(json.dumps(asdict(orders)))
    return [sys.executable, "-m", "bench.generator", str(path)]
