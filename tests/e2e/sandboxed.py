"""Run a command under the restrictions of a unit that need no systemd: system calls, address families, W^X memory.

    python sandboxed.py relayd.service command argument…

As systemd does it, with libseccomp; the sets of system calls are those of the systemd installed here.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from ctypes import c_int, c_uint, c_uint32, c_uint64, c_void_p
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 38, 65
_ALLOW, _ERRNO, _COMPARE_EQUAL = 0x7FFF0000, 0x00050000, 4


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", c_uint), ("op", c_int), ("a", c_uint64), ("b", c_uint64))


def service_settings(unit: Path) -> dict[str, list[str]]:
    """The [Service] section: every value of every name, in order."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and line[0] not in "#;":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def allowed_calls(filters: list[str]) -> set[str]:
    """What SystemCallFilter= lines leave, an allow list that `~` takes from."""
    allowed: set[str] = set()
    for line in filters:
        names = {call for name in line.removeprefix("~").split() for call in _expanded(name)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def confine(unit: Path) -> None:
    """Restrict this process and all that it will start. Raises OSError where the kernel cannot."""
    settings = service_settings(unit)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if settings["MemoryDenyWriteExecute"] == ["yes"]:
        _prctl(_PR_SET_MDWE, 1)
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = c_void_p
    context = c_void_p(seccomp.seccomp_init(c_uint32(_ERRNO | errno.EPERM)))
    for name in sorted(allowed_calls(settings["SystemCallFilter"]) - {"socket"}):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # others exist on other architectures
            seccomp.seccomp_rule_add_array(context, c_uint32(_ALLOW), number, 0, None)
    number = seccomp.seccomp_syscall_resolve_name(b"socket")
    for family in settings["RestrictAddressFamilies"][0].split():
        match = _Comparison(0, _COMPARE_EQUAL, getattr(socket, family), 0)
        seccomp.seccomp_rule_add_array(context, c_uint32(_ALLOW), number, 1, ctypes.byref(match))
    if seccomp.seccomp_load(context) != 0:
        raise OSError("seccomp_load failed")


def _expanded(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    listing = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    members = [line.strip() for line in listing[1:] if line.startswith("    ") and not line.strip().startswith("#")]
    return {call for member in members for call in _expanded(member)}


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
