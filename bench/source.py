"""smtp-source, the load generator of every plain trial."""

import subprocess
from pathlib import Path

from bench import process
from bench.loopback import endpoint
from bench.message import make_message
from bench.system import RECIPIENT


def start_source(
    directory: Path, address: str, port: int, *, sender: str, octets: int, count: int, connections: int, is_reused: bool
) -> "subprocess.Popen[bytes]":
    """Send `count` messages over so many connections at once; it ends after the last reply, 0 if all were taken."""
    message = directory / f"message.{octets}"
    message.write_bytes(make_message(sender, octets))
    keep = ["-d"] if is_reused else []
    return process.start(
        ["/usr/sbin/smtp-source", *keep, "-C", "20", "-s", str(connections), "-m", str(count), "-M", "app.example.com",
         "-f", sender, "-t", RECIPIENT, "-F", str(message), endpoint(address, port)],
        log=directory / "source.log",
    )  # fmt: skip
