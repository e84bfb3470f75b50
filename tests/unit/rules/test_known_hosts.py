"""One table of host names: it fits whole names, and whoever asks gets the same answer."""

import pytest

from relayd.mail.dkim_record import Algorithm
from relayd.rules.alignment import Sending, included_by
from relayd.rules.known_hosts import KNOWN_SERVERS, USUAL, Dkim, Signing, dialect_of, signing_for

SES = Signing(Dkim.RSA, frozenset({b"message-id", b"date"}))
HOSTS = [
    ("email-smtp.eu-west-1.amazonaws.com", "ses"),
    ("EMAIL-SMTP.us-gov-west-1.amazonaws.com.", "ses"),
    ("email-smtp-fips.us-east-2.amazonaws.com", "ses"),
    ("email-smtp.cn-north-1.amazonaws.com.cn", "ses"),
    ("smtp.gmail.com", "google"),
    ("smtp-relay.gmail.com", "google"),
    ("smtp.google.com", "google"),
    ("aspmx.l.google.com", "google"),
    ("alt3.aspmx.l.google.com", "google"),
    ("smtp.office365.com", "microsoft365"),
    ("b-test.mail.protection.outlook.com", "microsoft365"),
    ("b-test.o-v1.mx.microsoft", "microsoft365"),
    ("smtp.sendgrid.net", "sendgrid"),
    # Somebody else's, with a name that holds a provider's.
    ("ec2-192-0-2-1.eu-west-1.compute.amazonaws.com", "generic"),
    ("my-nlb.elb.eu-west-1.amazonaws.com", "generic"),
    ("email-smtp.amazonaws.com", "generic"),
    ("email-smtp.a.b.amazonaws.com", "generic"),
    ("email-smtp..amazonaws.com", "generic"),
    ("notemail-smtp.eu-west-1.amazonaws.com", "generic"),
    ("email-smtp.eu-west-1.evilamazonaws.com", "generic"),
    ("email-smtp.eu-west-1.amazonaws.com.attacker.test", "generic"),
    ("email-smtp.eu-west-1xamazonaws.com", "generic"),
    ("evilsmtp.office365.com", "generic"),
    ("evilsmtp.office365.com.attacker.test", "generic"),
    ("smtp.office365.com.attacker.test", "generic"),
    ("mail.protection.outlook.com", "generic"),
    ("notsmtp.sendgrid.net", "generic"),
    ("smtp.sendgrid.net.attacker.test", "generic"),
    ("smtp-evil.gmail.com.attacker.test", "generic"),
    ("smtpxgmail.com", "generic"),
    ("aspmx.attacker.google.com", "generic"),
    ("/run/smtp.gmail.com", "generic"),
    ("smtp.gmail.com\nx", "generic"),
    ("", "generic"),
]


@pytest.mark.parametrize(("host", "dialect"), HOSTS)
def test_a_name_fits_as_a_whole(host: str, dialect: str) -> None:
    assert dialect_of("smtp_relay", None, host) == dialect
    known = KNOWN_SERVERS.get(dialect)
    assert included_by(sending(host)) == (known.spf_include if known else None)
    assert signing_for("smtp_relay", None, host, None) == (SES if dialect == "ses" else USUAL)


def test_each_name_of_the_table_belongs_to_one_server() -> None:
    assert {dialect for _, dialect in HOSTS} == {*KNOWN_SERVERS, "generic"}


@pytest.mark.parametrize(
    ("provider", "dialect", "host", "dkim", "signing"),
    [
        ("smtp_relay", None, None, None, USUAL),
        ("smtp_relay", "ses", "vpce-1.email-smtp.eu-west-1.vpce.amazonaws.com", None, SES),
        ("smtp_relay", "postfix", "email-smtp.eu-west-1.amazonaws.com", None, USUAL),
        ("smtp_relay", "ses", None, "all", Signing(Dkim.ALL, SES.rewritten)),
        ("smtp_relay", None, "mx.b.test", "rsa", Signing(Dkim.RSA)),
        ("smtp_relay", None, "mx.b.test", "none", Signing(Dkim.NONE)),
        ("google_workspace", None, "relay.b.test", None, USUAL),
        ("sendgrid", None, "relay.b.test", "rsa", Signing(Dkim.RSA)),
    ],
)
def test_what_the_operator_says_comes_before_what_is_known(
    provider: str, dialect: str | None, host: str | None, dkim: str | None, signing: Signing
) -> None:
    assert signing_for(provider, dialect, host, dkim) == signing


def test_an_upstream_takes_the_signatures_that_it_names() -> None:
    accepted = {dkim: [each for each in Algorithm if dkim.accepts(each)] for dkim in Dkim}
    assert accepted == {Dkim.ALL: [*Algorithm], Dkim.RSA: [Algorithm.RSA_SHA256], Dkim.NONE: []}


def sending(host: str) -> Sending:
    return Sending("a.test", (), "smtp_relay", None, None, host, None, None)
