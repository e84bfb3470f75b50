"""Dovecot's submission server: takes mail from who logs in under TLS, and hands it to another server."""

import subprocess
from pathlib import Path
from typing import Self

from tests.peers.postfix import wait_for_port

_CONFIG = """\
protocols = submission
base_dir = {directory}/run
state_dir = {directory}/state
log_path = {directory}/log
hostname = submission.example.net
ssl = required
ssl_cert = <{chain_file}
ssl_key = <{chain_file}
disable_plaintext_auth = yes
auth_mechanisms = plain login cram-md5
mail_location = maildir:{directory}/mail
first_valid_uid = 1
submission_relay_host = 127.0.0.1
submission_relay_port = {relay_port}
passdb {{
  driver = passwd-file
  args = {directory}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/mail
}}
service submission-login {{
  inet_listener submission {{
    address = 127.0.0.1
    port = {port}
  }}
  chroot =
}}
"""


class DovecotSubmission:
    """Use as a context manager, as root; `directory` is open to all. What it takes goes to 127.0.0.1:`relay_port`."""

    def __init__(
        self, directory: Path, port: int, *, chain_file: Path, login: tuple[str, str], relay_port: int
    ) -> None:
        self.directory = directory
        self.port = port
        self._chain_file = chain_file
        self._login = login
        self._relay_port = relay_port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        (self.directory / "mail").mkdir()
        (self.directory / "mail").chmod(0o777)
        name, password = self._login
        (self.directory / "users").write_text(f"{name}:{{PLAIN}}{password}\n")
        config = self.directory / "dovecot.conf"
        config.write_text(
            _CONFIG.format(
                directory=self.directory, chain_file=self._chain_file, port=self.port, relay_port=self._relay_port
            )
        )
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["/usr/sbin/dovecot", "-F", "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        wait_for_port(self.port, self.log)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(30)

    def log(self) -> str:
        files = (self.directory / "output", self.directory / "log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists())
