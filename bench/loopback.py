"""The only addresses that the bench listens on and sends to. A load generator aimed at somebody else is an attack."""

import socket
from ipaddress import IPv6Address, ip_address

from bench.errors import BenchError


def loopback(text: str) -> str:
    """The address as it was given, if it is in 127.0.0.0/8 or ::1. Names are refused: they may change their meaning."""
    try:
        address = ip_address(text)
    except ValueError:
        raise BenchError(f"{text!r} is no IP address; the bench wants one of 127.0.0.0/8, or ::1") from None
    # Mapped addresses (::ffff:127.0.0.1) are refused with the rest: nobody needs them here.
    if not address.is_loopback or (isinstance(address, IPv6Address) and address.ipv4_mapped is not None):
        raise BenchError(f"{text} is not a loopback address; the bench sends to 127.0.0.0/8 and ::1 only")
    return text


def endpoint(address: str, port: int) -> str:
    """`127.0.0.1:25` or `[::1]:25`, as smtp-source, smtp-sink and relayd's settings read it."""
    checked = loopback(address)
    return f"[{checked}]:{port}" if ":" in checked else f"{checked}:{port}"


def free_port(address: str) -> int:
    """A TCP port of this address that nobody uses just now."""
    family = socket.AF_INET6 if ":" in loopback(address) else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
