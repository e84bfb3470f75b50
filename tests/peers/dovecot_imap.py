"""Dovecot's IMAP server: one account, its mail in a Maildir that a test may put messages into."""

import os
import shutil
from itertools import count
from pathlib import Path
from typing import Self

from tests.peers.dovecot import Dovecot

# Where Debian's dovecot-imapd puts its programs.
LIBEXEC = Path(os.environ.get("RELAYD_TEST_DOVECOT_LIBEXEC", "/usr/lib/dovecot"))

_IMAP = """\
protocols = imap
libexec_dir = {libexec}
auth_mechanisms = plain login
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


class DovecotImap(Dovecot):
    """STARTTLS on one port, TLS at once on the other."""

    def __init__(
        self,
        directory: Path,
        *,
        starttls_port: int,
        implicit_port: int,
        chain_file: Path,
        login: tuple[str, str],
    ) -> None:
        protocol = _IMAP.format(libexec=LIBEXEC, starttls_port=starttls_port, implicit_port=implicit_port)
        super().__init__(directory, protocol, (starttls_port, implicit_port), chain_file=chain_file, login=login)
        self.ports = {"starttls": starttls_port, "implicit": implicit_port}
        self._numbers = count(1)

    def __enter__(self) -> Self:
        for name in ("", "cur", "new", "tmp"):
            (self.directory / "mail" / name).mkdir()
            shutil.chown(self.directory / "mail" / name, "nobody", "nogroup")
        return super().__enter__()

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
