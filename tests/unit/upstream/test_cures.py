"""What is said of a step that failed."""

import pytest

from relayd.upstream.cures import Place, cure


@pytest.mark.parametrize(
    ("step", "text", "code", "expected"),
    [
        ("ehlo", "the reply does not end: given up after 32768 octets", None, "check host and port"),
        ("ehlo", "5.5.1 what?", 502, "--ehlo-name"),
        (
            "auth",
            "a password is not sent over opportunistic TLS, which verifies no certificate",
            None,
            "--tls starttls",
        ),
        ("auth", "the grant is dead (invalid_grant): relayd upstream login out", None, "do as it says"),
        ("auth", "upstream out has no grant yet: relayd upstream login out", None, "do as it says"),
        (
            "auth",
            "a@b.example.com gets no token (unauthorized_client): relayd doctor google out",
            None,
            "do as it says",
        ),
        ("auth", "you@example.com may not log in with its token: 5.7.8 XOAUTH2", 535, "do as it says"),
        ("auth", "no token from oauth.example.net: connection refused", None, "token server"),
        ("auth", "the upstream does not offer AUTH XOAUTH2, which its settings require", None, "--tls starttls"),
        ("auth", "5.7.8 bad credentials", 535, "--username NAME"),
    ],
)
def test_a_failure_is_told_with_what_mends_it(step: str, text: str, code: int | None, expected: str) -> None:
    assert expected in cure(step, text, code, Place("out", "smtp.example.net", 587))


@pytest.mark.parametrize("line", ["over opportunistic TLS, which verifies no certificate", "without TLS"])
def test_for_a_token_no_mechanism_of_passwords_is_named(line: str) -> None:
    told = cure("auth", f"an access token is not sent {line}: set tls", None, Place("out", "smtp.example.net", 587))
    assert "--tls starttls or implicit" in told and "CRAM-MD5" not in told
