"""Make the systems that are compared, each in a directory of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.milters import OpenDkim, Rspamd
from bench.names import BASELINE, NAMES, RELAYD_RSA
from bench.postfix import Postfix
from bench.relayd_node import RSA_DOMAIN, Relayd, RelaydNode
from bench.system import SENDER_DOMAIN, Place, System


def make_systems(directory: Path, address: str, sink_port: int) -> dict[str, System]:
    """All of them, none started. The two relayds are one node with two domains, as their mail may be too."""

    def place(name: str) -> Place:
        return Place(directory / name, address, sink_port)

    node = RelaydNode(place("r"))
    made: Mapping[str, Callable[[], System]] = {
        BASELINE: lambda: Postfix(place("p")),
        "postfix-opendkim": lambda: Postfix(place("po"), OpenDkim(directory / "o")),
        "postfix-rspamd": lambda: Postfix(place("pr"), Rspamd(directory / "d")),
        RELAYD_RSA: lambda: Relayd(node, RSA_DOMAIN),
        "relayd": lambda: Relayd(node, SENDER_DOMAIN),
    }
    return {name: made[name]() for name in NAMES}
