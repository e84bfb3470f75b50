"""A Postfix of the bench's own: a directory, a port, a relay for this host, all mail to the sink.

Its settings are those with which it used the least CPU here and was still durable: no look-ups, no limits meant for
strangers, processes that are not renewed. Keeping connections to the sink open cost a fifth more than it saved.
"""

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench import process
from bench.errors import BenchError
from bench.loopback import endpoint, free_port
from bench.milters import Milter
from bench.system import SENDER_DOMAIN, SINK_CONNECTIONS, Place

_MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example.com
mydestination =
alias_maps =
alias_database =
inet_interfaces = {address}
inet_protocols = {protocols}
mynetworks = 127.0.0.0/8 [::1]/128
relayhost = {relayhost}
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_tls_security_level = none
smtp_tls_security_level = none
disable_dns_lookups = yes
smtputf8_enable = no
in_flow_delay = 0
max_use = 100000
local_header_rewrite_clients =
default_process_limit = 100
initial_destination_concurrency = {connections}
default_destination_concurrency_limit = {connections}
smtp_connection_cache_on_demand = no
"""

_MILTER = """\
smtpd_milters = {milter}
milter_protocol = 6
milter_default_action = tempfail
"""

# Nothing is chrooted: a chroot would need copies of the system's files.
_MASTER = """\
{listen} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_MOST_SECONDS = 600


class Postfix:
    """Needs root. With a milter, that signs for SENDER_DOMAIN."""

    sender = f"app@{SENDER_DOMAIN}"

    def __init__(self, place: Place, milter: Milter | None = None) -> None:
        self._place = place
        self._directory = place.directory
        self._milter = milter
        self.port = free_port(place.address)
        self._master: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if not self._directory.exists():
            self._make()
        if self._milter:
            self._milter.start()
        log = self._directory / "control"
        process.run(["/usr/sbin/postfix", "-c", str(self._config), "check"], log=log)
        # Not `postfix start`, whose master leaves us: this pid is ours. As it changes its user for a while, the
        # kernel forgets that it should die with the bench: hence an end of its own.
        end = str(_MOST_SECONDS)
        self._master = process.start(
            [f"{_daemon_directory()}/master", "-c", str(self._config), "-s", "-e", end], log=log
        )
        process.wait_for_port(self._place.address, self.port, self._master, self._directory / "log")

    def stop(self) -> None:
        process.stop(self._master)
        self._master = None
        if self._milter:
            self._milter.stop()

    def discard(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def account(self) -> Mapping[str, str]:
        raise BenchError("Postfix is not set up for STARTTLS and AUTH here")

    def roots(self) -> Mapping[str, int]:
        assert self._master
        return {"postfix": self._master.pid, **(self._milter.roots() if self._milter else {})}

    @property
    def _config(self) -> Path:
        return self._directory / "config"

    def _make(self) -> None:
        owner = pwd.getpwnam("postfix")
        for name in ("config", "queue", "data"):
            (self._directory / name).mkdir(parents=True)
        os.chown(self._directory / "data", owner.pw_uid, owner.pw_gid)
        address = self._place.address
        relayhost = f"[{address}]:{self._place.sink_port}"
        main = _MAIN.format(
            directory=self._directory,
            address=address,
            protocols="ipv6" if ":" in address else "ipv4",
            relayhost=relayhost,
            connections=SINK_CONNECTIONS,
        )
        milter = _MILTER.format(milter=self._milter.socket) if self._milter else ""
        (self._config / "main.cf").write_text(main + milter)
        (self._config / "master.cf").write_text(_MASTER.format(listen=endpoint(address, self.port)))


def _daemon_directory() -> str:
    done = subprocess.run(["/usr/sbin/postconf", "-dh", "daemon_directory"], capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"postconf failed: {done.stderr.strip()}")
    return done.stdout.strip()
