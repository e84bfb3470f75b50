"""The systems that are compared: the names by which the results know them, and how they are shown."""

from collections.abc import Mapping

# What everything is compared with, and what is measured with TLS and for latency.
BASELINE = "postfix"
RELAYD_RSA = "relayd-rsa"

NAMES: Mapping[str, str] = {
    BASELINE: "Postfix, no signing",
    "postfix-opendkim": "Postfix + OpenDKIM, RSA-2048",
    "postfix-rspamd": "Postfix + rspamd, RSA-2048",
    RELAYD_RSA: "relayd, RSA-2048",
    "relayd": "relayd, RSA-2048 + Ed25519",
}
