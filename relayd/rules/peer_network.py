"""What counts as one peer."""

import ipaddress


def peer_network(peer: str) -> str:
    """An IPv4 address as it is; of an IPv6 address its /64, which is what one customer has."""
    if ":" not in peer:
        return peer
    return str(ipaddress.IPv6Network((peer, 64), strict=False))
