"""What a domain is told to publish, and the lines to paste into its zone."""

import pytest

from relayd.rules.dns_records import DnsRecord, records_for, zone_lines

RSA_VALUE = "v=DKIM1; k=rsa; p=" + "A" * 392


def _records(domain: str = "example.com", **changed: object) -> tuple[DnsRecord, ...]:
    values: dict[str, object] = {
        "keys": [("s1", "rsa-sha256", RSA_VALUE), ("s2", "ed25519-sha256", "v=DKIM1; k=ed25519; p=B")],
        "spf_hosts": ["ip4:192.0.2.1", "include:_spf.google.com"],
        "mx_host": "mx.example.net",
    }
    return records_for(domain, **(values | changed))  # type: ignore[arg-type]


def test_every_record_a_domain_needs() -> None:
    assert [(record.type, record.name, record.value, record.priority) for record in _records()] == [
        ("TXT", "example.com", "v=spf1 ip4:192.0.2.1 include:_spf.google.com ~all", None),
        ("TXT", "s1._domainkey.example.com", RSA_VALUE, None),
        ("TXT", "s2._domainkey.example.com", "v=DKIM1; k=ed25519; p=B", None),
        ("TXT", "_dmarc.example.com", "v=DMARC1; p=none", None),
        ("MX", "example.com", "mx.example.net", 10),
    ]
    assert all(record.purpose for record in _records())


def test_what_is_not_known_is_left_out() -> None:
    records = _records(keys=[], spf_hosts=[], mx_host=None, dmarc_policy="reject", dmarc_rua="dmarc@example.com")
    assert [record.value for record in records] == ["v=DMARC1; p=reject; rua=mailto:dmarc@example.com"]


def test_zone_lines_can_be_pasted() -> None:
    spf, rsa, ed25519, dmarc, mx = zone_lines(_records())
    assert spf == 'example.com. IN TXT "v=spf1 ip4:192.0.2.1 include:_spf.google.com ~all"'
    assert rsa == f's1._domainkey.example.com. IN TXT "{RSA_VALUE[:255]}" "{RSA_VALUE[255:]}"'
    assert ed25519 == 's2._domainkey.example.com. IN TXT "v=DKIM1; k=ed25519; p=B"'
    assert dmarc == '_dmarc.example.com. IN TXT "v=DMARC1; p=none"'
    assert mx == "example.com. IN MX 10 mx.example.net."


def test_quotes_and_backslashes_are_escaped_in_zone_lines() -> None:
    assert zone_lines([DnsRecord("TXT", "x", 'a"b\\c', None, "")]) == ('x. IN TXT "a\\"b\\\\c"',)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"domain": "Example.com"}, "lower case"),
        ({"domain": "müller.example"}, "xn--"),
        ({"domain": "a b"}, "not a domain"),
        ({"domain": "example.com."}, "not a domain"),
        ({"mx_host": "mx example"}, "not a domain"),
        ({"keys": [("S 1", "rsa-sha256", RSA_VALUE)]}, "not a DKIM selector"),
        ({"spf_hosts": ["192.0.2.1"]}, "not an SPF mechanism"),
        ({"spf_hosts": ["ip4:192.0.2.1 +all"]}, "not an SPF mechanism"),
        ({"spf_hosts": ["all"]}, "not an SPF mechanism"),
        ({"spf_hosts": [f"include:s{i}.example" for i in range(11)]}, "11 DNS lookups"),
        ({"dmarc_policy": "maybe"}, "none, quarantine, reject"),
        ({"dmarc_rua": "a@b.example; p=none"}, "not an address"),
    ],
)
def test_what_would_break_a_record_is_refused(changed: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        _records(**changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host", ["a", "mx", "a:relay.example.org", "mx/24", "ip6:2001:db8::/32", "exists:%{i}.x.example"]
)
def test_spf_mechanisms_that_are_taken(host: str) -> None:
    assert _records(spf_hosts=[host])[0].value == f"v=spf1 {host} ~all"
