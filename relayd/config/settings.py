"""Every setting: its type, its default, its bounds. `config.example.toml` has a line for each."""

import socket
from ipaddress import ip_address, ip_network
from os import cpu_count
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from relayd.config.failover import BreakerSettings, DnsSettings
from relayd.config.feedback import ReportSettings, SuppressionSettings
from relayd.config.section import Seconds
from relayd.config.section import Section as _Section
from relayd.config.verdict_settings import VerdictSettings
from relayd.errors import RelaydError
from relayd.rules.dns_records import records_for
from relayd.rules.warm_up import DEFAULT_SCHEDULE, Schedule
from relayd.store.dsn import parse_dsn


def _endpoint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError('an address and a port such as "127.0.0.1:2525" or "[::]:587"')
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        version = ip_address(bare).version
    except ValueError:
        raise ValueError('an IP address and a port such as "127.0.0.1:2525" or "[::]:587"') from None
    if (version == 6) != (bare != host):
        raise ValueError("brackets around an IPv6 address and only there: [::1]:587, 127.0.0.1:587")
    return text


def _dsn(text: str) -> str:
    try:
        parse_dsn(text)
    except RelaydError as error:
        raise PydanticCustomError("dsn", "{problem}", {"problem": str(error)}) from None
    return text


def _exclude_each_other(name: str, value: str | None, info: ValidationInfo) -> str | None:
    if value is not None and info.data.get(name) is not None:
        raise ValueError(f"one of {info.field_name} and {name}, not both")
    return value


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError('a network such as "10.0.0.0/8" or "fd00::/8" with no host bits set') from None


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or "\0" in str(path):
        raise ValueError("an absolute path")
    return path


Endpoint = Annotated[str, AfterValidator(_endpoint)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
# systemd's own rule for the name of a credential: that of a file.
Credential = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}$")]


class DatabaseSettings(_Section):
    """Where Postgres is."""

    dsn: Annotated[str, AfterValidator(_dsn)]
    password_file: AbsolutePath | None = None
    password_credential: Credential | None = None
    tls: Literal["default", "require", "verify-ca", "verify-full"] = "default"
    tls_ca_file: AbsolutePath | None = None
    connections: Annotated[int, Field(ge=2, le=100)] = 6
    connect_timeout_seconds: Seconds = 3.0
    acquire_timeout_seconds: Seconds = 5.0
    statement_timeout_seconds: Seconds = 10.0

    @field_validator("password_credential")
    @classmethod
    def _one_password(cls, value: str | None, info: ValidationInfo) -> str | None:
        return _exclude_each_other("password_file", value, info)

    @field_validator("tls_ca_file")
    @classmethod
    def _used(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("tls") in ("default", "require"):
            raise ValueError('database.tls = "verify-ca" or "verify-full" beside it: nothing is verified otherwise')
        return value


class SealSettings(_Section):
    """The key under which secrets are kept."""

    key_file: AbsolutePath | None = None
    key_credential: Credential | None = None
    older_key_files: tuple[AbsolutePath, ...] = ()

    @field_validator("key_credential")
    @classmethod
    def _one_key(cls, value: str | None, info: ValidationInfo) -> str | None:
        return _exclude_each_other("key_file", value, info)


class SubmissionSettings(_Section):
    """Where and how apps submit mail."""

    tls_certificate: AbsolutePath | None = None
    tls_key: Annotated[AbsolutePath | None, Field(validate_default=True)] = None
    listen: tuple[Endpoint, ...] = ("127.0.0.1:587",)
    listen_implicit_tls: Annotated[tuple[Endpoint, ...], Field(validate_default=True)] = ()
    allow_plaintext_auth: bool = False
    reject_invalid_helo: bool = False
    max_message_octets: Annotated[int, Field(ge=1024, le=1_000_000_000)] = 26_214_400
    max_recipients: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_held_octets: Annotated[int, Field(ge=1024, le=1_000_000_000_000)] = 268_435_456
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1000
    max_connections_per_peer: Annotated[int, Field(ge=1, le=100_000)] = 100
    max_auth_tries: Annotated[int, Field(ge=1, le=100)] = 3
    idle_seconds: Seconds = 300.0
    data_seconds: Seconds = 1800.0
    session_seconds: Seconds = 7200.0
    longest_schedule_days: Annotated[float, Field(gt=0, le=366)] = 30.0

    @field_validator("tls_key")
    @classmethod
    def _with_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("tls_certificate", value) is None):
            raise ValueError("tls_certificate and tls_key together")
        return value

    @field_validator("listen_implicit_tls")
    @classmethod
    def _possible(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value and info.data.get("listen") == ():
            raise ValueError("an address in listen or in listen_implicit_tls")
        if value and info.data.get("tls_certificate", value) is None:
            raise ValueError("tls_certificate and tls_key beside it")
        return value


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
    first_look_seconds: Seconds = 60.0
    looks: Annotated[int, Field(ge=1, le=20)] = 5
    look_give_up_seconds: Seconds = 86400.0
    poll_seconds: Seconds = 1.0
    attempt_seconds: Annotated[float, Field(ge=1, le=86400)] = 1200.0
    greeting_seconds: Annotated[float, Field(gt=0, le=3600)] = 300.0
    delay_warning_seconds: Annotated[float, Field(ge=0, le=30 * 86400)] = 4 * 3600.0
    release_spread_seconds: Annotated[float, Field(ge=0, le=3600)] = 300.0
    drain_seconds: Seconds = 30.0

    @field_validator("longest_retry_seconds")
    @classmethod
    def _not_shorter(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("first_retry_seconds", value):
            raise ValueError("a delay not shorter than first_retry_seconds")
        return value


class HttpSettings(_Section):
    """Metrics and health for Prometheus and load balancers."""

    # TOML has no null.
    listen: Annotated[Endpoint | None, BeforeValidator(lambda value: None if value == "off" else value)] = (
        "127.0.0.1:8025"
    )


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
    report_mx_host: str | None = None

    @field_validator("spf_hosts", "mx_host", "dmarc_rua", "report_mx_host")
    @classmethod
    def _publishable(cls, value: Any, info: ValidationInfo) -> Any:
        name = "mx_host" if info.field_name == "report_mx_host" else str(info.field_name)
        given: dict[str, Any] = {"spf_hosts": (), "mx_host": None, name: value}
        try:
            records_for("example.com", (), **given)
        except ValueError as error:
            raise PydanticCustomError("publish", "{problem}", {"problem": str(error)}) from None
        return value


def _schedule(text: str) -> str:
    return str(Schedule.parse(text))


Rate = Annotated[float, Field(gt=0, le=1)]


class HealthSettings(_Section):
    """What became of a mailbox's mail, and from when on it is paused."""

    days: Annotated[int, Field(ge=1, le=90)] = 7
    least_tried: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    bounces_pause: Rate = 0.2
    spam_pause: Rate = 0.01


class WarmUpSettings(_Section):
    """How a new mailbox's limit grows, and from which rates on it does not."""

    schedule: Annotated[str, AfterValidator(_schedule)] = str(DEFAULT_SCHEDULE)
    least_sent: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    bounces_hold: Rate = 0.05
    bounces_lower: Annotated[Rate, Field(validate_default=True)] = 0.10
    spam_hold: Rate = 0.001
    spam_lower: Annotated[Rate, Field(validate_default=True)] = 0.003

    @field_validator("bounces_lower", "spam_lower")
    @classmethod
    def _after_hold(cls, value: float, info: ValidationInfo) -> float:
        hold = str(info.field_name).replace("lower", "hold")
        if value < info.data.get(hold, value):
            raise ValueError(f"a rate not below {hold}")
        return value


class TierSettings(_Section):
    """A tier: what a client in it may have. What is left out is not limited."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9 _-]{0,62}$")]
    domains: Annotated[int, Field(ge=0)] | None = None
    mailboxes: Annotated[int, Field(ge=0)] | None = None
    dedicated_ips: Annotated[int, Field(ge=0)] | None = None


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
    breaker: BreakerSettings = BreakerSettings()
    dns: DnsSettings = DnsSettings()
    http: HttpSettings = HttpSettings()
    control: ControlSettings = ControlSettings()
    publish: PublishSettings = PublishSettings()
    tiers: tuple[TierSettings, ...] = ()
    health: HealthSettings = HealthSettings()
    reports: ReportSettings = ReportSettings()
    warm_up: WarmUpSettings = WarmUpSettings()
    verdicts: tuple[VerdictSettings, ...] = ()
    suppression: SuppressionSettings = SuppressionSettings()
    log: LogSettings = LogSettings()

    def warnings(self) -> list[str]:
        """What is allowed and yet hardly meant, with its remedy."""
        submission = self.submission
        may_log_in = submission.tls_certificate is not None or submission.allow_plaintext_auth
        if may_log_in or self.trusted_networks:
            return []
        return [
            "no app can submit mail: without a certificate nobody can log in, and no network is trusted; set "
            "submission.tls_certificate and tls_key, or add [[trusted_networks]]"
        ]
