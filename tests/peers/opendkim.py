"""OpenDKIM as a verifier of one message. Its exit code says nothing: what it tells is read."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_TOLD = re.compile(r"verification \(s=([^\s,]+),? d=[^\s,]+, .*?\) (succeeded|failed[^\n]*)")


def verdicts(message: bytes, records: Mapping[str, str], directory: Path) -> dict[str, str]:
    """For each selector that it judged "succeeded", or "failed: " and why. `records`: TXT records by their names."""
    content, zone, config = directory / "message", directory / "zone", directory / "opendkim.conf"
    content.write_bytes(message)
    zone.write_text("".join(f"{name} {value}\n" for name, value in records.items()))
    config.write_text(f"Mode v\nTestDNSData {zone}\nLogWhy yes\n")
    done = subprocess.run(
        ["/usr/sbin/opendkim", "-x", str(config), "-t", str(content), "-v"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    told = done.stdout + done.stderr
    found = dict(_TOLD.findall(told))
    assert found or "message not signed" in told, told
    return found
