"""Postfix: a whole one that delivers into Maildirs, and its smtp-sink. Each in a directory and on a port of its own."""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

START_SECONDS = 30.0

_MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example.net
mydestination =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_relay_restrictions = {restrictions}
smtpd_client_connection_count_limit = 0
smtpd_tls_security_level = {security_level}
smtpd_tls_chain_files = {chain_file}
smtpd_tls_received_header = yes
virtual_mailbox_domains = example.net
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
"""

# A login by Cyrus SASL, whose users are in a file of its own; never in the clear, and nobody is taken without.
_LOGIN = """\
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain = mx.example.net
smtpd_tls_auth_only = yes
smtpd_tls_ask_ccert = yes
"""
_SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {directory}/config/sasl/users
mech_list: PLAIN LOGIN CRAM-MD5
"""

# Nothing is chrooted: a chroot would need copies of the system's files.
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
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
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """The destination of all mail to example.net. Use as a context manager, as root; `directory` is open to all.

    With `chain_file` (a key and its certificates, PEM) it takes mail under STARTTLS only. With `login` (a name and a
    password) it takes mail from nobody else; that needs the chain file, and saslpasswd2.
    """

    def __init__(
        self, directory: Path, port: int, *, chain_file: Path | None = None, login: tuple[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.port = port
        self._chain_file = chain_file
        self._login = login
        self._config = directory / "config"

    def __enter__(self) -> Self:
        owner = pwd.getpwnam("postfix")
        for name in ("config", "queue", "data", "mail"):
            (self.directory / name).mkdir()
        for name in ("data", "mail"):
            os.chown(self.directory / name, owner.pw_uid, owner.pw_gid)
        settings = _MAIN + (_LOGIN if self._login else "")
        if self._login:
            self._register(*self._login, owner.pw_uid)
        (self._config / "main.cf").write_text(
            settings.format(
                directory=self.directory,
                security_level="encrypt" if self._chain_file else "none",
                chain_file=self._chain_file or "",
                restrictions="permit_sasl_authenticated, reject" if self._login else "reject_unauth_destination",
                uid=owner.pw_uid,
                gid=owner.pw_gid,
            )
        )
        (self._config / "master.cf").write_text(_MASTER.format(port=self.port))
        self._control("start")
        wait_for_port(self.port, self.log)
        return self

    def __exit__(self, *_: object) -> None:
        self._control("stop")

    def mail(self) -> list[bytes]:
        """The messages delivered, with Postfix's fields on top and CRLF."""
        new = self.directory / "mail" / "all" / "new"
        return [path.read_bytes().replace(b"\n", b"\r\n") for path in sorted(new.iterdir())] if new.is_dir() else []

    def log(self) -> str:
        file = self.directory / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def _register(self, name: str, password: str, owner: int) -> None:
        sasl = self._config / "sasl"  # where Debian's Postfix looks
        sasl.mkdir()
        (sasl / "smtpd.conf").write_text(_SASL.format(directory=self.directory))
        subprocess.run(
            ["/usr/sbin/saslpasswd2", "-c", "-p", "-f", str(sasl / "users"), "-u", "mx.example.net", name],
            input=password.encode(), check=True, timeout=60,
        )  # fmt: skip
        os.chown(sasl / "users", owner, -1)

    def _control(self, command: str) -> None:
        # Not captured: its daemons inherit the pipe and would keep it open.
        with (self.directory / "control").open("a+b") as output:
            done = subprocess.run(
                ["/usr/sbin/postfix", "-c", str(self._config), command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, timeout=60,
            )  # fmt: skip
        assert done.returncode == 0, (self.directory / "control").read_text() + self.log()


class SmtpSink:
    """smtp-sink, which keeps every message in a file. Use as a context manager.

    `is_dropping`: it hangs up in place of the reply to the dot, when it has the message.
    """

    def __init__(self, directory: Path, port: int, *, is_dropping: bool = False) -> None:
        self._dump = directory / ("dropped" if is_dropping else "dump")
        self._manner = ["-q", "."] if is_dropping else []
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._dump.mkdir()
        # Only root can become somebody else, and must.
        become = ["-u", "nobody"] if os.geteuid() == 0 else []
        if become:
            os.chown(self._dump, pwd.getpwnam("nobody").pw_uid, -1)
        self._process = subprocess.Popen(
            ["/usr/sbin/smtp-sink", *become, *self._manner, "-d", f"{self._dump}/", f"127.0.0.1:{self.port}", "64"],
            stdin=subprocess.DEVNULL,
        )
        wait_for_port(self.port, lambda: "")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(10)

    def mail(self) -> list[bytes]:
        """The messages taken, with smtp-sink's fields on top and CRLF."""
        return [path.read_bytes().replace(b"\n", b"\r\n") for path in sorted(self._dump.iterdir())]


def wait_for_port(port: int, log: Callable[[], str]) -> None:
    """Until something listens there; `log` says why nothing does."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < end, f"nothing listens on {port}: {log()}"
            time.sleep(0.05)
