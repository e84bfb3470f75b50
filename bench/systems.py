"""The systems that are compared, by the names under which the results know them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.milters import OpenDkim, Rspamd
from bench.postfix import Postfix
from bench.relayd_node import RSA_DOMAIN, Relayd, RelaydNode
from bench.system import SENDER_DOMAIN, Place, System

# What everything is compared with, and who is measured with TLS and for latency.
BASELINE = "postfix"
RELAYD_RSA = "relayd-rsa"

NAMES: Mapping[str, str] = {
    BASELINE: "Postfix, no signing",
    "postfix-opendkim": "Postfix + OpenDKIM, RSA-2048",
    "postfix-rspamd": "Postfix + rspamd, RSA-2048",
    RELAYD_RSA: "relayd, RSA-2048",
    "relayd": "relayd, RSA-2048 + Ed25519",
}


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
