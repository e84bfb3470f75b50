"""Every setting: its type, its default, its bounds. `config.example.toml` has a line for each."""

import socket
from ipaddress import ip_address, ip_network
from os import cpu_count
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _endpoint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError('an address and a port such as "127.0.0.1:2525" or "[::]:587"')
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ValueError('an IP address and a port such as "127.0.0.1:2525" or "[::]:587"') from None
    if ":" in host and not host.startswith("["):
        raise ValueError("an IPv6 address in brackets: [::1]:587")
    return text


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError('a network such as "10.0.0.0/8" or "fd00::/8" with no host bits set') from None


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("an absolute path")
    return path


Endpoint = Annotated[str, AfterValidator(_endpoint)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class DatabaseSettings(_Section):
    """Where Postgres is."""

    dsn: Annotated[str, Field(min_length=1)]
    password_file: AbsolutePath | None = None
    password_credential: str | None = None
    tls: Literal["default", "require", "verify-ca", "verify-full"] = "default"
    tls_ca_file: AbsolutePath | None = None
    connections: Annotated[int, Field(ge=2, le=100)] = 6
    connect_timeout_seconds: Seconds = 3.0
    acquire_timeout_seconds: Seconds = 5.0
    statement_timeout_seconds: Seconds = 30.0


class SealSettings(_Section):
    """The key under which secrets are kept."""

    key_file: AbsolutePath | None = None
    key_credential: str | None = None
    older_key_files: tuple[AbsolutePath, ...] = ()


class SubmissionSettings(_Section):
    """Where and how apps hand in mail."""

    listen: tuple[Endpoint, ...] = ("127.0.0.1:587",)
    listen_implicit_tls: tuple[Endpoint, ...] = ()
    tls_certificate: AbsolutePath | None = None
    tls_key: AbsolutePath | None = None
    allow_plaintext_auth: bool = False
    max_message_octets: Annotated[int, Field(ge=1024, le=1_000_000_000)] = 26_214_400
    max_recipients: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1000
    max_connections_per_peer: Annotated[int, Field(ge=1, le=100_000)] = 100
    max_auth_tries: Annotated[int, Field(ge=1, le=100)] = 3
    idle_seconds: Seconds = 300.0
    data_seconds: Seconds = 1800.0
    session_seconds: Seconds = 7200.0


class TrustedNetwork(_Section):
    """Hosts that need no login, and the client in whose name they send."""

    network: Annotated[str, AfterValidator(_network)]
    client: Annotated[str, Field(min_length=1)]


class DeliverySettings(_Section):
    """How hard relayd tries."""

    first_retry_seconds: Seconds = 60.0
    longest_retry_seconds: Seconds = 4 * 3600.0
    give_up_after_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 5 * 86400.0
    max_retries: Annotated[int, Field(ge=0, le=1000)] = 50
    poll_seconds: Seconds = 1.0
    attempt_seconds: Annotated[float, Field(ge=1, le=86400)] = 900.0
    release_spread_seconds: Annotated[float, Field(ge=0, le=3600)] = 300.0
    drain_seconds: Seconds = 30.0


class HttpSettings(_Section):
    """Metrics and health for Prometheus and load balancers."""

    listen: Endpoint | None = "127.0.0.1:8025"


class ControlSettings(_Section):
    """The control socket."""

    socket: AbsolutePath = Path("/run/relayd/control.sock")
    mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = "0660"
    group: str | None = None


class PublishSettings(_Section):
    """What `relayd domain records` tells people to publish."""

    spf_hosts: tuple[str, ...] = ()
    mx_host: str | None = None
    dmarc_policy: Literal["none", "quarantine", "reject"] = "none"
    dmarc_rua: str | None = None


class LogSettings(_Section):
    """The log, on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "logfmt"] = "logfmt"


class Settings(_Section):
    """The whole configuration of a node."""

    node: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = Field(
        default_factory=lambda: socket.gethostname()[:63] or "relayd"
    )
    hostname: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$")] = Field(
        default_factory=lambda: socket.getfqdn() or "localhost"
    )
    processes: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: cpu_count() or 1)
    retention_days: Annotated[float, Field(gt=0, le=36500)] = 30.0
    database: DatabaseSettings
    seal: SealSettings = SealSettings()
    submission: SubmissionSettings = SubmissionSettings()
    trusted_networks: tuple[TrustedNetwork, ...] = ()
    delivery: DeliverySettings = DeliverySettings()
    http: HttpSettings = HttpSettings()
    control: ControlSettings = ControlSettings()
    publish: PublishSettings = PublishSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _together(self) -> "Settings":
        submission = self.submission
        if (submission.tls_certificate is None) != (submission.tls_key is None):
            raise ValueError("submission.tls_certificate and submission.tls_key come together")
        if submission.listen_implicit_tls and submission.tls_certificate is None:
            raise ValueError("submission.listen_implicit_tls needs submission.tls_certificate and submission.tls_key")
        if not submission.listen and not submission.listen_implicit_tls:
            raise ValueError("submission.listen or submission.listen_implicit_tls must name an address")
        return self
