"""The programs that relayd is compared with: Debian's packages, installed if they are not there."""

import os
import shutil
import subprocess
from pathlib import Path

from bench.errors import BenchError

_PACKAGES = {"postfix": "/usr/sbin/smtp-source", "opendkim": "/usr/sbin/opendkim", "rspamd": "/usr/bin/rspamd"}
_INSTALL_SECONDS = 600.0


def install_missing() -> None:
    """Raises BenchError where that cannot be done, with the command that would."""
    missing = [package for package, program in _PACKAGES.items() if not Path(program).exists()]
    if not missing:
        return
    command = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise BenchError(f"not installed: {', '.join(missing)}; the bench knows Debian's packages only")
    if os.geteuid() != 0:
        raise BenchError(f"not installed: {', '.join(missing)}; run as root: {command}")
    print(f"installing {', '.join(missing)}", flush=True)
    # Without this the packages would start services of their own, on the system's ports.
    policy = Path("/usr/sbin/policy-rc.d")
    is_ours = not policy.exists()
    if is_ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for arguments in (["apt-get", "-q", "update"], [*command.split(), "-q", "-y"]):
            done = subprocess.run(
                arguments, env=environment, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
            )
            if done.returncode != 0:
                raise BenchError(f"{' '.join(arguments)} failed: {done.stderr.strip()}")
    finally:
        if is_ours:
            policy.unlink()
