"""Tell systemd how the daemon does: sd_notify(3) without its library. Silent where there is no systemd."""

import os
import socket
import time

# How systemd reaches the process that it started; not for that process's children.
VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})


def notify(**states: str) -> None:
    """Send states such as READY="1" or STATUS="…" to systemd; nothing happens without NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={value}" for name, value in states.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        # A listener that does not read must not stop the mail.
        sender.setblocking(False)
        try:
            sender.connect(address)
            sender.sendall(message.encode())
        except OSError:
            return  # systemd notices by its own timers; there is nobody else to tell


def reloading() -> None:
    """A reload has begun; `ready` ends it."""
    notify(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))


def watchdog_seconds() -> float | None:
    """How often systemd wants a sign of life, None if it does not watch."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000
