"""Dovecot's IMAP server: one account, its mail in a Maildir that a test may put messages into."""

import os
import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import Self

from tests.peers.postfix import wait_for_port

# Where Debian's dovecot-imapd puts its programs.
LIBEXEC = Path(os.environ.get("RELAYD_TEST_DOVECOT_LIBEXEC", "/usr/lib/dovecot"))

_CONFIG = """\
protocols = imap
libexec_dir = {libexec}
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
ssl = required
ssl_cert = <{chain_file}
ssl_key = <{chain_file}
disable_plaintext_auth = yes
auth_mechanisms = plain login
mail_location = maildir:{directory}/mail
first_valid_uid = 1
passdb {{
  driver = passwd-file
  args = {directory}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/mail
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {starttls_port}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {implicit_port}
    ssl = yes
  }}
  chroot =
}}
"""


class DovecotImap:
    """Use as a context manager, as root; `directory` is open to all. STARTTLS on one port, TLS at once on the other."""

    def __init__(
        self,
        directory: Path,
        *,
        starttls_port: int,
        implicit_port: int,
        chain_file: Path,
        login: tuple[str, str],
    ) -> None:
        self.directory = directory
        self.ports = {"starttls": starttls_port, "implicit": implicit_port}
        self._chain_file = chain_file
        self._login = login
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)

    def __enter__(self) -> Self:
        for name in ("", "cur", "new", "tmp"):
            (self.directory / "mail" / name).mkdir()
            shutil.chown(self.directory / "mail" / name, "nobody", "nogroup")
        name, password = self._login
        (self.directory / "users").write_text(f"{name}:{{PLAIN}}{password}\n")
        config = self.directory / "dovecot.conf"
        config.write_text(
            _CONFIG.format(
                libexec=LIBEXEC,
                directory=self.directory,
                chain_file=self._chain_file,
                starttls_port=self.ports["starttls"],
                implicit_port=self.ports["implicit"],
            )
        )
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["/usr/sbin/dovecot", "-F", "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        for port in self.ports.values():
            wait_for_port(port, self.log)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(30)

    def add(self, content: bytes) -> None:
        """Put a message into the inbox."""
        name = f"{next(self._numbers)}.relayd.example"
        (self.directory / "mail" / "tmp" / name).write_bytes(content)
        shutil.chown(self.directory / "mail" / "tmp" / name, "nobody", "nogroup")
        (self.directory / "mail" / "tmp" / name).rename(self.directory / "mail" / "new" / name)

    def flags(self) -> set[str]:
        """What was marked at any message."""
        mail = self.directory / "mail"
        names = [each.name for each in [*(mail / "cur").iterdir(), *(mail / "new").iterdir()]]
        return {name.partition(":2,")[2] for name in names} - {""}

    def log(self) -> str:
        files = (self.directory / "output", self.directory / "log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists())
