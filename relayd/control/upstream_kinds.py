"""The kinds of upstreams, by provider and mode: what each takes, what it needs, what it is when nothing is said."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from relayd.control.upstream_options import COLUMNS, SECRETS
from relayd.errors import BadValue
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.token_login import logs_in_by_token

# RFC 8314 3.3: a port that begins with TLS.
IMPLICIT_TLS_PORT = 465
_DEFAULT_PORTS = {"opportunistic": 25, "starttls": 587, "implicit": 465, "none": 25}

_MOUNTS = Path("/proc/self/mountinfo")

_SMTP = frozenset(
    {
        "host",
        "port",
        "tls",
        "verify_certificate",
        "ca_file",
        "allow_plaintext_auth",
        "client_certificate",
        "client_key",
        "ehlo_name",
        "source_address",
        "max_messages_per_connection",
        "idle_seconds",
        "dkim",
    }
)
_LOGIN = frozenset({"username", "password", "auth_mechanism"})
_OAUTH = frozenset(
    {"token_url", "authorization_url", "oauth_client_id", "oauth_client_secret", "oauth_account", "refresh_token"}
)
_API = frozenset({"api_url", "ca_file"})
_ANY = frozenset(
    {
        "mode",
        "dialect",
        "max_connections",
        "max_recipients",
        "on_uncertain",
        "sender_address",
        "sender_name",
        "spf_include",
    }
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What one kind of upstream takes, needs and defaults to. Names are those of the options."""

    takes: frozenset[str]
    needs: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)


KINDS: dict[tuple[str, str | None], Kind] = {
    ("capture", None): Kind(frozenset({"directory"}), ("directory",)),
    ("smtp_relay", None): Kind(_SMTP | _LOGIN | _OAUTH, ("host",), {"tls": "starttls"}),
    # With a login, or without one from an address that Google was told of.
    ("google_workspace", "smtp-relay"): Kind(
        _SMTP | _LOGIN | _OAUTH, defaults={"host": "smtp-relay.gmail.com", "tls": "starttls"}
    ),
    ("google_workspace", "xoauth2"): Kind(
        _SMTP | _OAUTH | {"api_url"}, defaults={"host": "smtp.gmail.com", "tls": "starttls"}
    ),
    ("google_workspace", "gmail_api"): Kind(_API | _OAUTH),
    ("sendgrid", "smtp"): Kind(
        _SMTP | {"api_key"}, defaults={"host": "smtp.sendgrid.net", "tls": "starttls", "username": "apikey"}
    ),
    ("sendgrid", "api"): Kind(_API | {"api_key"}),
}
DEFAULT_MODES = {"google_workspace": "smtp-relay", "sendgrid": "smtp"}

CAUTIONS: dict[tuple[str, str | None], str] = {
    ("sendgrid", "api"): (
        "the API takes messages apart and builds its own: relayd's DKIM signature, Received and Date are lost, the "
        "MIME structure is built anew, and what cannot be taken apart (signed or encrypted mail, bounces) is refused"
    ),
}

_OTHERS = ("api_url", "token_url", "authorization_url", "oauth_client_id", "oauth_account", "dkim")


def completed(upstream: UpstreamRecord) -> UpstreamRecord:
    """A new upstream with what nobody said filled in."""
    upstream = replace(upstream, mode=upstream.mode or DEFAULT_MODES.get(upstream.provider_type))
    if _is_unix_socket(upstream) and upstream.smtp_tls is None:
        upstream = replace(upstream, smtp_tls="none")  # nobody is on the way
    if upstream.smtp_tls is None and upstream.smtp_port == IMPLICIT_TLS_PORT:
        upstream = replace(upstream, smtp_tls="implicit")
    missing = {
        COLUMNS.get(name, name): value
        for name, value in kind_of(upstream).defaults.items()
        if getattr(upstream, COLUMNS.get(name, name)) is None
    }
    upstream = replace(upstream, **missing)
    if upstream.smtp_port is None and upstream.smtp_tls is not None and not _is_unix_socket(upstream):
        upstream = replace(upstream, smtp_port=_DEFAULT_PORTS[upstream.smtp_tls])
    return upstream


def with_tls_of_port(before: UpstreamRecord, after: UpstreamRecord) -> UpstreamRecord:
    """The upstream after its port was changed and nothing was said of TLS: 465 begins with it, and leaving 465 for the
    port of STARTTLS means that."""
    if before.smtp_tls is None or before.smtp_port == after.smtp_port:
        return after
    if after.smtp_port == IMPLICIT_TLS_PORT:
        return replace(after, smtp_tls="implicit")
    was_implied = before.smtp_port == IMPLICIT_TLS_PORT and before.smtp_tls == "implicit"
    if was_implied and after.smtp_port == _DEFAULT_PORTS["starttls"]:
        return replace(after, smtp_tls="starttls")
    return after


def caution_of(provider: str, mode: str | None, port: int | None, tls: str | None) -> str | None:
    """What an operator should know who chooses this."""
    if port == IMPLICIT_TLS_PORT and tls not in (None, "implicit"):
        return f"port 465 begins with TLS (RFC 8314), and a server there does not wait for --tls {tls}: --tls implicit"
    return CAUTIONS.get((provider, mode))


def without_defaults(upstream: UpstreamRecord) -> UpstreamRecord:
    """The upstream without what any mode of its provider fills in by itself: for who gives it another mode."""
    kinds = [kind for (provider, _), kind in KINDS.items() if provider == upstream.provider_type]
    filled_in = {(COLUMNS.get(name, name), value) for kind in kinds for name, value in kind.defaults.items()}
    forgotten: dict[str, Any] = {column: None for column, value in filled_in if getattr(upstream, column) == value}
    if upstream.smtp_tls is not None and upstream.smtp_port == _DEFAULT_PORTS[upstream.smtp_tls]:
        forgotten["smtp_port"] = None
    return replace(upstream, **forgotten)


def kind_of(upstream: UpstreamRecord) -> Kind:
    """Raises BadValue if the provider has no such mode."""
    kind = KINDS.get((upstream.provider_type, upstream.mode))
    if kind is None:
        modes = [str(mode) for provider, mode in KINDS if provider == upstream.provider_type and mode]
        hint = f"its modes are {', '.join(modes)}" if modes else "leave mode out"
        raise BadValue(f"{upstream.provider_type} has no mode {upstream.mode}", hint=hint)
    return kind


def check(upstream: UpstreamRecord) -> None:
    """Raises BadValue for what is missing, of no use, or unwise in what an operator said."""
    kind = kind_of(upstream)
    what = f"{upstream.provider_type} {upstream.mode or ''}".strip()
    missing = [name for name in kind.needs if _value(upstream, name) is None]
    if missing:
        hint = "the Maildir to deliver into" if missing == ["directory"] else None
        raise BadValue(f"{', '.join(missing)} is required for {what}" + (f": {hint}" if hint else ""))
    foreign = [
        name
        for name in (*COLUMNS, *SECRETS, *_OTHERS)
        if name not in kind.takes | _ANY | kind.defaults.keys() and _is_given(upstream, name)
    ]
    if foreign:
        raise BadValue(f"{', '.join(foreign)} cannot be used with {what}")
    if upstream.smtp_host is not None:
        _check_smtp(upstream)
    if upstream.capture_directory is not None:
        check_directory(upstream.capture_directory, _MOUNTS.read_text())


def check_directory(directory: str, mounts: str) -> None:
    """Raises BadValue for a directory that systemd hides. `mounts`: /proc/self/mountinfo, as proc(5) has it."""
    for line in mounts.splitlines():
        root, mount_point = line.split()[3:5]
        is_inside = Path(os.path.normpath("/" + directory.lstrip("/"))).is_relative_to(mount_point)
        if is_inside and "/systemd-private-" in root:
            raise BadValue(
                f"{directory} is in the service's own {mount_point}: nobody else sees it, and it ends with relayd",
                hint="choose a directory under /var/lib/relayd",
            )


def _check_smtp(upstream: UpstreamRecord) -> None:
    if _is_unix_socket(upstream):
        if upstream.smtp_port is not None or upstream.source_address is not None:
            raise BadValue(
                "a Unix socket has neither port nor source_address",
                hint="leave them out; an upstream that has them does not become one: add another",
            )
        if len(str(upstream.smtp_host).encode()) > 107:
            raise BadValue("the path of a Unix socket holds at most 107 octets")
        if upstream.smtp_tls != "none":
            raise BadValue("TLS is not spoken over a Unix socket", hint="use --tls none: nobody is on the way")
    elif upstream.smtp_port is None:
        raise BadValue("port is required")
    if upstream.smtp_password_sealed is not None and upstream.smtp_username is None:
        raise BadValue("username and password go together", hint="give --username and --password-file, or neither")
    by_token = logs_in_by_token(upstream)
    if (
        upstream.provider_type != "sendgrid"
        and upstream.smtp_username is not None
        and upstream.smtp_password_sealed is None
        and not by_token
    ):
        raise BadValue("username and password go together", hint="give --username and --password-file, or neither")
    if (upstream.smtp_client_certificate is None) != (upstream.smtp_client_key_sealed is None):
        raise BadValue("a client's certificate and its key go together")
    if upstream.smtp_client_certificate is not None and upstream.smtp_tls == "none":
        raise BadValue("a client's certificate is of no use without TLS", hint="use --tls starttls or implicit")
    if upstream.smtp_tls in ("none", "opportunistic") and not _is_unix_socket(upstream):
        _check_unverified(upstream, by_token=by_token)


def _check_unverified(upstream: UpstreamRecord, *, by_token: bool) -> None:
    """What lets anybody log in goes to whom the certificate names, unless the operator permits it."""
    if upstream.smtp_allow_plaintext_auth:
        return
    if by_token:
        raise BadValue(
            "an access token would cross the network in the clear, or go to whoever answers",
            hint=f"relayd upstream set {upstream.name} --tls starttls, or implicit; --allow-plaintext-auth permits it",
        )
    if upstream.smtp_username is not None and upstream.smtp_auth_mechanism != "CRAM-MD5":
        raise BadValue(
            "the password would cross the network in the clear, or go to whoever answers",
            hint="use --tls starttls or implicit; or --auth-mechanism CRAM-MD5, which does not send it; "
            "--allow-plaintext-auth permits it all the same",
        )


def _is_unix_socket(upstream: UpstreamRecord) -> bool:
    return (upstream.smtp_host or "").startswith("/")


def _value(upstream: UpstreamRecord, name: str) -> Any:
    column = f"{SECRETS[name]}_sealed" if name in SECRETS else COLUMNS.get(name, name)
    return getattr(upstream, column)


def _is_given(upstream: UpstreamRecord, name: str) -> bool:
    column = f"{SECRETS[name]}_sealed" if name in SECRETS else COLUMNS.get(name, name)
    fields = UpstreamRecord.__dataclass_fields__
    return bool(getattr(upstream, column) != fields[column].default)
