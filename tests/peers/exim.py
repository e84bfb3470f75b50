"""Exim as Debian builds it, unpacked into `.peers/` since its package cannot stand beside Postfix's."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import Self

from tests.peers.postfix import wait_for_port

UNPACKED = Path(__file__).resolve().parents[2] / ".peers" / "exim" / "usr" / "sbin"
PROGRAM = UNPACKED / "exim4"

# The check of line lengths is Debian's own (acl/40_exim4-config_check_data).
_CONFIG = """\
primary_hostname = mx.example.net
exim_user = {user}
exim_group = {user}
never_users =
deliver_drop_privilege
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
tls_advertise_hosts =
spool_directory = {directory}/spool
log_file_path = {directory}/log/%s
pid_file_path = {directory}/pid
acl_smtp_rcpt = check_rcpt
acl_smtp_data = check_data
host_lookup =
rfc1413_hosts =
smtp_accept_max = 0

begin acl
check_rcpt:
  accept domains = example.net
  deny message = relay not permitted
check_data:
  deny condition = ${{if > {{$max_received_linelength}}{{998}}}}
       message = maximum allowed line length is 998 octets, got $max_received_linelength
  accept

begin routers
all:
  driver = accept
  transport = maildir

begin transports
maildir:
  driver = appendfile
  directory = {directory}/mail
  maildir_format
"""


class Exim:
    """The destination of all mail to example.net. Use as a context manager, as root; `directory` is open to all."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        owner = pwd.getpwnam("mail")
        for name in ("spool", "log", "mail"):
            (self.directory / name).mkdir()
            os.chown(self.directory / name, owner.pw_uid, owner.pw_gid)
        config = self.directory / "exim.conf"
        config.write_text(_CONFIG.format(directory=self.directory, port=self.port, user="mail"))
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [str(PROGRAM), "-C", str(config), "-bdf", "-q1m"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        wait_for_port(self.port, self.log)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(10)

    def mail(self) -> list[bytes]:
        """The messages delivered, with Exim's fields on top and CRLF."""
        new = self.directory / "mail" / "new"
        return [path.read_bytes().replace(b"\n", b"\r\n") for path in sorted(new.iterdir())] if new.is_dir() else []

    def log(self) -> str:
        files = [self.directory / "output", *sorted((self.directory / "log").iterdir())]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())
