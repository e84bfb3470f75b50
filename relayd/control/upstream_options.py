"""What can be said of an upstream, as a peer says it, and how that becomes a record. Secrets are sealed at once."""

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, IPvAnyAddress, SecretStr

from relayd.control import client_certificate
from relayd.control.route import Request
from relayd.control.values import DomainName, EmailAddress, Line
from relayd.errors import Refusal
from relayd.seal import Seal, SealError
from relayd.store.upstreams import UpstreamRecord

Provider = Literal["smtp_relay", "capture", "google_workspace", "sendgrid"]
Mode = Literal["smtp-relay", "xoauth2", "gmail_api", "smtp", "api"]
Dialect = Literal["google", "sendgrid", "microsoft365", "ses", "postfix", "exim", "generic"]

# What the API calls otherwise than the table does.
COLUMNS = {
    "host": "smtp_host",
    "port": "smtp_port",
    "tls": "smtp_tls",
    "verify_certificate": "smtp_verify_certificate",
    "ca_file": "smtp_ca_file",
    "username": "smtp_username",
    "auth_mechanism": "smtp_auth_mechanism",
    "allow_plaintext_auth": "smtp_allow_plaintext_auth",
    "client_certificate": "smtp_client_certificate",
    "directory": "capture_directory",
}
# Secrets, each with the column in which it is sealed, without its `_sealed`.
SECRETS = {
    "password": "smtp_password",
    "client_key": "smtp_client_key",
    "api_key": "api_key",
    "oauth_client_secret": "oauth_client_secret",
    "refresh_token": "oauth_refresh_token",
}


def _absolute(text: str) -> str:
    if not PurePosixPath(text).is_absolute():
        raise ValueError("must be an absolute path, as the relayd server sees it")
    return text


def _password(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().isprintable():
        raise ValueError("must be one line without control characters")
    return secret


def _web(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an address like https://host/path, without a query or a login")
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError("must be https: secrets go there")
    return text.rstrip("/")


ServerPath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_absolute)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=4096), AfterValidator(_password)]
Pem = Annotated[str, Field(min_length=1, max_length=65536)]
SecretPem = Annotated[SecretStr, Field(min_length=1, max_length=65536)]
WebAddress = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_web)]


class UpstreamOptions(Request):
    """What may be given when an upstream is added and changed later."""

    mode: Mode | None = None
    dialect: Dialect | None = None
    host: Line | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["none", "opportunistic", "starttls", "implicit"] | None = None
    verify_certificate: bool = True
    ca_file: ServerPath | None = None
    username: Line | None = None
    password: Password | None = None
    auth_mechanism: Literal["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"] | None = None
    allow_plaintext_auth: bool = False
    client_certificate: Pem | None = None
    client_key: SecretPem | None = None
    api_url: WebAddress | None = None
    api_key: Password | None = None
    token_url: WebAddress | None = None
    authorization_url: WebAddress | None = None
    oauth_client_id: Line | None = None
    oauth_client_secret: Password | None = None
    oauth_account: EmailAddress | None = None
    refresh_token: Password | None = None
    ehlo_name: Line | None = None
    source_address: IPvAnyAddress | None = None
    max_connections: Annotated[int, Field(ge=1, le=10_000)] = 20
    max_recipients: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_messages_per_connection: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    idle_seconds: Annotated[float, Field(ge=0, le=3600)] = 10.0
    on_uncertain: Literal["retry", "hold"] = "retry"
    directory: ServerPath | None = None
    sender_address: EmailAddress | None = None
    sender_name: Line | None = None
    spf_include: DomainName | None = None
    dkim: Literal["all", "rsa", "none"] | None = None


def changed(seal: Seal, upstream: UpstreamRecord, wanted: dict[str, Any]) -> UpstreamRecord:
    """The record with these options in it. None forgets one. Raises BadValue for a key that is of no use."""
    columns = {COLUMNS.get(name, name): value for name, value in wanted.items() if name not in SECRETS}
    if columns.get("source_address") is not None:
        columns["source_address"] = str(columns["source_address"])
    for name in SECRETS.keys() & wanted.keys():
        secret: SecretStr | None = wanted[name]
        column = SECRETS[name]
        columns[f"{column}_sealed"] = secret and seal.seal(
            secret.get_secret_value().encode(), row=upstream.seal_row(column)
        )
    upstream = replace(upstream, **columns)
    if {"client_certificate", "client_key"} & wanted.keys():
        _check_pair(seal, upstream)
    return upstream


def _check_pair(seal: Seal, upstream: UpstreamRecord) -> None:
    chain, key = upstream.smtp_client_certificate, upstream.smtp_client_key_sealed
    if chain is None or key is None:
        return
    try:
        opened = seal.open(key, row=upstream.seal_row("smtp_client_key"))
    except SealError as error:
        raise Refusal(f"the client key cannot be opened: {error}", hint="give it anew: --client-key-file") from None
    client_certificate.check(chain, opened)
