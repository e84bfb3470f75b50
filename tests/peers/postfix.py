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
smtpd_relay_restrictions = reject_unauth_destination
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

    With `chain_file` (a key and its certificates, PEM) it takes mail under STARTTLS only.
    """

    def __init__(self, directory: Path, port: int, *, chain_file: Path | None = None) -> None:
        self.directory = directory
        self.port = port
        self._chain_file = chain_file
        self._config = directory / "config"

    def __enter__(self) -> Self:
        owner = pwd.getpwnam("postfix")
        for name in ("config", "queue", "data", "mail"):
            (self.directory / name).mkdir()
        for name in ("data", "mail"):
            os.chown(self.directory / name, owner.pw_uid, owner.pw_gid)
        (self._config / "main.cf").write_text(
            _MAIN.format(
                directory=self.directory,
                security_level="encrypt" if self._chain_file else "none",
                chain_file=self._chain_file or "",
                uid=owner.pw_uid,
                gid=owner.pw_gid,
            )
        )
        (self._config / "master.cf").write_text(_MASTER.format(port=self.port))
        self._control("start")
        _wait_for_port(self.port, self.log)
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

    def _control(self, command: str) -> None:
        # Not captured: its daemons inherit the pipe and would keep it open.
        with (self.directory / "control").open("a+b") as output:
            done = subprocess.run(
                ["/usr/sbin/postfix", "-c", str(self._config), command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, timeout=60,
            )  # fmt: skip
        assert done.returncode == 0, (self.directory / "control").read_text() + self.log()


class SmtpSink:
    """smtp-sink, which keeps every message in a file. Use as a context manager."""

    def __init__(self, directory: Path, port: int) -> None:
        self._dump = directory / "dump"
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._dump.mkdir()
        # Only root can become somebody else, and must.
        become = ["-u", "nobody"] if os.geteuid() == 0 else []
        if become:
            os.chown(self._dump, pwd.getpwnam("nobody").pw_uid, -1)
        self._process = subprocess.Popen(
            ["/usr/sbin/smtp-sink", *become, "-d", f"{self._dump}/", f"127.0.0.1:{self.port}", "64"],
            stdin=subprocess.DEVNULL,
        )
        _wait_for_port(self.port, lambda: "")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(10)

    def mail(self) -> list[bytes]:
        """The messages taken, with smtp-sink's fields on top and CRLF."""
        return [path.read_bytes().replace(b"\n", b"\r\n") for path in sorted(self._dump.iterdir())]


def _wait_for_port(port: int, log: Callable[[], str]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < end, f"nothing listens on {port}: {log()}"
            time.sleep(0.05)
