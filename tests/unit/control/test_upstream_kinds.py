"""What each kind of upstream takes, needs and is when nothing is said."""

from dataclasses import replace
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from relayd.control.upstream_kinds import DEFAULT_MODES, KINDS, check, check_directory, completed
from relayd.control.upstream_options import SECRETS, changed
from relayd.errors import BadValue
from relayd.seal import Seal, new_key, parse_key
from relayd.store.ids import new_id
from relayd.store.upstreams import UpstreamRecord

SEAL = Seal(parse_key(new_key().encode()))
# For each option a value that it takes, and that is not what it is by default.
PAIR = trustme.CA().issue_cert("relay.example.com")
VALUES: dict[str, Any] = {
    "host": "smtp.example.net",
    "port": 2525,
    "tls": "implicit",
    "verify_certificate": False,
    "ca_file": "/etc/ssl/own.pem",
    "username": "relay",
    "auth_mechanism": "PLAIN",
    "allow_plaintext_auth": True,
    "client_certificate": PAIR.cert_chain_pems[0].bytes().decode(),
    "directory": "/var/mail/captured",
    "api_url": "https://api.example.net",
    "token_url": "https://token.example.net",
    "authorization_url": "https://login.example.net",
    "oauth_client_id": "client",
    "oauth_account": "noreply@example.com",
    **dict.fromkeys(SECRETS, "secret"),
    "client_key": PAIR.private_key_pem.bytes().decode(),
}
# What is of no use without another.
WITH = {
    "username": ("password",),
    "password": ("username",),
    "client_certificate": ("client_key",),
    "client_key": ("client_certificate",),
}
NEEDED = {("capture", None): ("directory",), ("smtp_relay", None): ("host",)}
KIND_IDS = [f"{provider} {mode or ''}".strip() for provider, mode in KINDS]


def upstream(kind: tuple[str, str | None], **options: Any) -> UpstreamRecord:
    """As `relayd upstream add` makes it."""
    given = {**{name: VALUES[name] for name in NEEDED.get(kind, ())}, **options}
    record = replace(UpstreamRecord(new_id(), "out", kind[0]), mode=kind[1])
    wanted = {name: SecretStr(value) if name in SECRETS else value for name, value in given.items()}
    return completed(changed(SEAL, record, wanted))


@pytest.mark.parametrize("kind", KINDS, ids=KIND_IDS)
def test_what_a_kind_needs_is_enough(kind: tuple[str, str | None]) -> None:
    check(upstream(kind))


@pytest.mark.parametrize("kind", NEEDED, ids=str)
def test_what_a_kind_needs_is_asked_for(kind: tuple[str, str | None]) -> None:
    (name,) = NEEDED[kind]
    with pytest.raises(BadValue, match=f"{name} is required for {kind[0]}"):
        check(upstream(kind, **{name: None}))


@pytest.mark.parametrize("kind", KINDS, ids=KIND_IDS)
@pytest.mark.parametrize("name", VALUES)
def test_an_option_is_taken_by_its_kinds_and_refused_by_the_others(kind: tuple[str, str | None], name: str) -> None:
    taken = KINDS[kind].takes | KINDS[kind].defaults.keys()
    partners = [each for each in WITH.get(name, ()) if each in taken]
    record = upstream(kind, **{each: VALUES[each] for each in (name, *partners)})
    if name in taken:
        check(record)
    else:
        with pytest.raises(BadValue, match=rf"{name}.* cannot be used with {kind[0]}"):
            check(record)


@pytest.mark.parametrize(
    ("kind", "host", "port", "username"),
    [
        (("google_workspace", "smtp-relay"), "smtp-relay.gmail.com", 587, None),
        (("google_workspace", "xoauth2"), "smtp.gmail.com", 587, None),
        (("google_workspace", "gmail_api"), None, None, None),
        (("sendgrid", "smtp"), "smtp.sendgrid.net", 587, "apikey"),
        (("sendgrid", "api"), None, None, None),
    ],
    ids=str,
)
def test_a_provider_is_known_where_it_is(
    kind: tuple[str, str], host: str | None, port: int | None, username: str | None
) -> None:
    record = upstream(kind)
    assert (record.smtp_host, record.smtp_port, record.smtp_username) == (host, port, username)
    assert record.smtp_tls == ("starttls" if host else None)


@pytest.mark.parametrize("provider", DEFAULT_MODES)
def test_a_provider_of_several_modes_has_one_by_default(provider: str) -> None:
    assert upstream((provider, None)).mode == DEFAULT_MODES[provider]


@pytest.mark.parametrize(
    ("kind", "hint"),
    [(("sendgrid", "xoauth2"), "its modes are smtp, api"), (("smtp_relay", "smtp"), "leave mode out")],
    ids=str,
)
def test_a_mode_of_another_provider_is_refused(kind: tuple[str, str], hint: str) -> None:
    with pytest.raises(BadValue, match=f"{kind[0]} has no mode {kind[1]}") as caught:
        upstream(kind)
    assert caught.value.hint == hint


@pytest.mark.parametrize(("tls", "port"), [("none", 25), ("opportunistic", 25), ("starttls", 587), ("implicit", 465)])
def test_the_port_follows_tls(tls: str, port: int) -> None:
    assert upstream(("smtp_relay", None), tls=tls).smtp_port == port


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"username": "u"}, "username and password go together"),
        ({"password": "p"}, "username and password go together"),
        ({"client_certificate": "PEM"}, "certificate and its key go together"),
        ({"client_key": "PEM"}, "certificate and its key go together"),
        ({"username": "u", "password": "p", "tls": "none"}, "in the clear"),
        ({"username": "u", "password": "p", "tls": "opportunistic"}, "in the clear"),
        ({"auth_mechanism": "XOAUTH2", "tls": "none"}, "in the clear"),
        ({"host": "/run/sock", "port": 25}, "neither port nor source_address"),
        ({"host": "/run/sock", "source_address": "192.0.2.1"}, "neither port nor source_address"),
        ({"host": "/" + "s" * 107}, "at most 107 octets"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(BadValue, match=text):
        check(upstream(("smtp_relay", None), **options))


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
def test_a_token_needs_a_line_that_is_vouched_for(tls: str) -> None:
    record = upstream(("google_workspace", "smtp-relay"), tls=tls)
    check(record)
    # CRAM-MD5 does not stop it: where there is a grant and no password, the login is by token.
    granted = replace(record, google_service_account_sealed=b"sealed", smtp_auth_mechanism="CRAM-MD5")
    with pytest.raises(BadValue, match="an access token would cross the network in the clear"):
        check(granted)
    check(replace(granted, smtp_allow_plaintext_auth=True))
    check(replace(granted, smtp_tls="starttls"))


def test_a_user_who_logs_in_by_token_has_no_password() -> None:
    record = replace(upstream(("google_workspace", "smtp-relay")), smtp_username="noreply@example.com")
    with pytest.raises(BadValue, match="username and password go together"):
        check(record)
    check(replace(record, oauth_refresh_token_sealed=b"sealed"))


def test_a_login_over_a_unix_socket_crosses_no_network() -> None:
    check(upstream(("smtp_relay", None), host="/run/sock", tls="none", username="u", password="p"))


def test_a_secret_is_sealed_for_its_own_column_and_none_forgets_it() -> None:
    record = upstream(("smtp_relay", None), username="u", password="p")
    assert record.smtp_password_sealed
    assert SEAL.open(record.smtp_password_sealed, row=record.seal_row("smtp_password")) == b"p"
    assert changed(SEAL, record, {"password": None}).smtp_password_sealed is None
    assert "sealed=" not in repr(record)


PRIVATE = """\
36 25 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
120 36 8:1 /tmp/systemd-private-0f0e-relayd.service-Ab1/tmp /tmp rw,nosuid shared:70 - ext4 /dev/sda1 rw
121 36 8:1 /var/tmp/systemd-private-0f0e-relayd.service-Cd2/tmp /var/tmp rw shared:71 - ext4 /dev/sda1 rw
"""
SHARED = """\
36 25 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 36 0:33 / /tmp rw,nosuid,nodev shared:9 - tmpfs tmpfs rw
"""


@pytest.mark.parametrize("directory", ["/tmp/mail", "/tmp", "/var/tmp/a/b", "/srv/../tmp/mail", "//tmp/mail"])
def test_a_capture_into_a_private_tmp_is_refused_with_the_reason(directory: str) -> None:
    with pytest.raises(BadValue, match=r"in the service's own /(var/)?tmp: nobody else sees it") as refused:
        check_directory(directory, PRIVATE)
    assert refused.value.hint and "/var/lib/relayd" in refused.value.hint
    check_directory(directory, SHARED)


@pytest.mark.parametrize("directory", ["/var/lib/relayd/mail", "/tmpfiles/mail", "/srv/tmp", "/var/tmpx"])
def test_a_capture_elsewhere_is_taken(directory: str) -> None:
    check_directory(directory, PRIVATE)
