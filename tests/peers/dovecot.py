"""Dovecot, with one user and TLS alone; and its submission server, which hands what it takes to another server."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.peers.postfix import wait_for_port

_COMMON = """\
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
ssl = required
ssl_cert = <{chain_file}
ssl_key = <{chain_file}
disable_plaintext_auth = yes
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
"""

_SUBMISSION = """\
protocols = submission
hostname = submission.example.net
auth_mechanisms = plain login cram-md5
submission_relay_host = 127.0.0.1
submission_relay_port = {relay_port}
service submission-login {{
  inet_listener submission {{
    address = 127.0.0.1
    port = {port}
  }}
  chroot =
}}
"""


class Dovecot:
    """Use as a context manager, as root; `directory` is open to all. `protocol` is the configuration of what it serves
    on `ports`."""

    def __init__(
        self, directory: Path, protocol: str, ports: Sequence[int], *, chain_file: Path, login: tuple[str, str]
    ) -> None:
        self.directory = directory
        self._protocol = protocol
        self._ports = ports
        self._chain_file = chain_file
        self._login = login
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        name, password = self._login
        (self.directory / "users").write_text(f"{name}:{{PLAIN}}{password}\n")
        config = self.directory / "dovecot.conf"
        config.write_text(self._protocol + _COMMON.format(directory=self.directory, chain_file=self._chain_file))
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["/usr/sbin/dovecot", "-F", "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        for port in self._ports:
            wait_for_port(port, self.log)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(30)

    def log(self) -> str:
        files = (self.directory / "output", self.directory / "log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists())


class DovecotSubmission(Dovecot):
    """What it takes goes to 127.0.0.1:`relay_port`."""

    def __init__(
        self, directory: Path, port: int, *, chain_file: Path, login: tuple[str, str], relay_port: int
    ) -> None:
        protocol = _SUBMISSION.format(port=port, relay_port=relay_port)
        super().__init__(directory, protocol, (port,), chain_file=chain_file, login=login)
        self.port = port

    def __enter__(self) -> Self:
        (self.directory / "mail").mkdir()
        (self.directory / "mail").chmod(0o777)
        return super().__enter__()
