"""Before anything is measured: one message through each system, and a look at how it arrives signed.

A signer that was set up wrongly lets mail pass unsigned, and would be the fastest of all.
"""

import re
import shutil
from collections.abc import Mapping

from bench.errors import BenchError
from bench.load import Load
from bench.sink import Sink
from bench.system import System
from bench.trial import Bench, send

_FIELD = re.compile(rb"^DKIM-Signature:(.*\r?\n(?:[ \t].*\r?\n)*)", re.MULTILINE | re.IGNORECASE)
_TAG = re.compile(rb"(?:^|[;\s])([a-z]+)\s*=\s*([^;]*)")
# The octets of a signature with a key of 2048 bits, and of Ed25519's, in base64.
_STRENGTHS = {("rsa-sha256", 344): "RSA-2048", ("ed25519-sha256", 88): "Ed25519"}
EXPECTED = {
    "postfix": (),
    "postfix-opendkim": ("RSA-2048",),
    "postfix-rspamd": ("RSA-2048",),
    "relayd-rsa": ("RSA-2048",),
    "relayd": ("Ed25519", "RSA-2048"),
}


def prove(bench: Bench, name: str, system: System) -> str:
    """What the system signs with, in words. Raises BenchError if that is not what its name promises."""
    dump = bench.directory / "dump"
    dump.mkdir()
    # smtp-sink writes as nobody.
    dump.chmod(0o777)
    try:
        with Sink(bench.directory, bench.address, bench.sink_port, dump=dump) as sink:
            system.start()
            try:
                send(bench, system, sink, Load(octets=4096, is_reused=False, connections=1, count=1))
            finally:
                system.stop()
        (message,) = dump.iterdir()
        found = signatures(message.read_bytes(), system.sender.rpartition("@")[2])
    finally:
        shutil.rmtree(dump)
    if found != EXPECTED[name]:
        raise BenchError(f"{name} should sign with {EXPECTED[name] or 'nothing'}, its message came with {found}")
    return " + ".join(found) or "none"


def signatures(message: bytes, domain: str) -> tuple[str, ...]:
    """What a message is signed with in the domain's name, sorted: algorithm and length of each signature."""
    return tuple(sorted(_strength(dict(_TAG.findall(field)), domain) for field in _FIELD.findall(message)))


def _strength(tags: Mapping[bytes, bytes], domain: str) -> str:
    algorithm, signer = (tags.get(name, b"").strip().decode() for name in (b"a", b"d"))
    octets = len(b"".join(tags.get(b"b", b"").split()))
    if signer != domain:
        return f"a signature of {signer}"
    return _STRENGTHS.get((algorithm, octets), f"{algorithm} of {octets} octets in base64")
