"""Where the harness may go: this machine's loopback addresses and nowhere else."""

from ipaddress import ip_address


class NotLoopback(Exception):
    """Somebody asked for mail to be sent, or a database to be broken, somewhere else."""


def loopback(host: str) -> str:
    """`host`, if it is an address in 127.0.0.0/8 or ::1. A name is refused too: it may come to mean another host."""
    try:
        is_ours = ip_address(host).is_loopback
    except ValueError:
        is_ours = False
    if not is_ours:
        raise NotLoopback(f"refused: {host!r} is not in 127.0.0.0/8 nor ::1, and this harness speaks to nothing else")
    return host
