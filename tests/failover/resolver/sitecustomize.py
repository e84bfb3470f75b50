"""Names that a drill makes up, with their addresses. Python imports this by itself where PYTHONPATH has its directory.

RELAYD_DRILL_HOSTS is a JSON object of names, each with its IPv4 addresses in order.
"""

import json
import os
import socket
from typing import Any

_KNOWN: dict[str, list[str]] = json.loads(os.environ.get("RELAYD_DRILL_HOSTS", "{}"))
_others = socket.getaddrinfo


def _getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
    if host not in _KNOWN:
        return _others(host, port, *arguments, **options)
    return [found for address in _KNOWN[host] for found in _others(address, port, *arguments, **options)]


socket.getaddrinfo = _getaddrinfo
