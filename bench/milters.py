"""The two milters that sign for Postfix, RSA-2048 alone, on Unix sockets. Over TCP delayed ACKs would halve them."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench import process
from bench.system import SENDER_DOMAIN

_SELECTOR = "bench"

# The key is its owner's alone, but above it there may be a directory for everybody's temporary files.
_OPENDKIM = """\
Mode s
Domain {domain}
Selector {selector}
KeyFile {key}
RequireSafeKeys no
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
Socket local:{socket}
UMask 000
Syslog no
"""

# One module, no rules, no statistics, no Redis, no DNS; each of the two processes scans what it is given itself. Of the
# public suffixes only those of the message: all of them take ten seconds to compile, and do nothing for a signature.
_RSPAMD = """\
options {{
  filters = "dkim"; explicit_modules = [];
  pidfile = "{directory}/pid"; tempdir = "{directory}"; hs_cache_dir = "{directory}";
  cache_file = "{directory}/symbols.cache";
  url_tld = "{directory}/suffixes";
  dns {{ nameserver = ["127.0.0.1"]; }}
}}
logging {{ type = "file"; filename = "{directory}/rspamd.log"; level = "warning"; }}
worker "rspamd_proxy" {{
  bind_socket = "{socket} mode=0666"; milter = yes; timeout = 120s; count = 2;
  upstream "local" {{ default = yes; self_scan = yes; }}
}}
modules {{ path = "{plugins}/dkim_signing.lua"; }}
dkim_signing {{
  sign_local = true; sign_networks = ["127.0.0.0/8", "::1"]; allow_username_mismatch = true;
  use_domain = "header"; use_esld = false; check_pubkey = false; use_redis = false; try_fallback = false;
  domain {{ {domain} {{ path = "{key}"; selector = "{selector}"; }} }}
}}
"""


class Milter(Protocol):
    """What Postfix needs of its signer."""

    @property
    def socket(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def roots(self) -> Mapping[str, int]: ...


class OpenDkim:
    """OpenDKIM with one key for SENDER_DOMAIN."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return f"unix:{self._path}"

    def start(self) -> None:
        config = self._directory / "opendkim.conf"
        if not config.exists():
            key = make_key(self._directory)
            config.write_text(_OPENDKIM.format(domain=SENDER_DOMAIN, selector=_SELECTOR, key=key, socket=self._path))
        self._path.unlink(missing_ok=True)
        log = self._directory / "log"
        self._process = process.start(["/usr/sbin/opendkim", "-f", "-x", str(config)], log=log)
        process.wait_for_path(self._path, self._process, log)

    def stop(self) -> None:
        process.stop(self._process)

    def roots(self) -> Mapping[str, int]:
        assert self._process
        return {"opendkim": self._process.pid}


class Rspamd:
    """rspamd as a milter that signs and does nothing else: its proxy worker, scanning in the same process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return f"unix:{self._path}"

    def start(self) -> None:
        config = self._directory / "rspamd.conf"
        if not config.exists():
            key = make_key(self._directory)
            shutil.chown(self._directory, "_rspamd", "_rspamd")
            shutil.chown(key, "_rspamd", "_rspamd")
            (self._directory / "suffixes").write_text("com\nnet\n")
            config.write_text(
                _RSPAMD.format(
                    directory=self._directory,
                    socket=self._path,
                    plugins="/usr/share/rspamd/plugins",
                    domain=SENDER_DOMAIN,
                    selector=_SELECTOR,
                    key=key,
                )
            )
        self._path.unlink(missing_ok=True)
        log = self._directory / "log"
        self._process = process.start(
            ["/usr/bin/rspamd", "-f", "-c", str(config), "-u", "_rspamd", "-g", "_rspamd"], log=log
        )
        process.wait_for_path(self._path, self._process, log)

    def stop(self) -> None:
        process.stop(self._process)

    def roots(self) -> Mapping[str, int]:
        assert self._process
        return {"rspamd": self._process.pid}


def make_key(directory: Path) -> Path:
    """An RSA-2048 key in PEM, readable by its owner alone."""
    directory.mkdir(parents=True, exist_ok=True)
    key = generate_private_key(public_exponent=65537, key_size=2048)
    path = directory / "key.pem"
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path
