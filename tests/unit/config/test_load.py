"""A wrong configuration: every error at once, each with its line and key, and no secret among them."""

import os
import traceback
from pathlib import Path

import pytest

from relayd.config.lines import key_lines, line_of
from relayd.config.load import ConfigError, load

DSN = 'dsn = "postgresql://relayd@db/relayd"'
ENDPOINT = 'expected an address and a port such as "127.0.0.1:2525" or "[::]:587"'

# Name -> the file, and the beginning of each line of the error after the file's name.
WRONG = {
    "nothing": ("", [":1: database: is required and missing"]),
    "unknown keys and tables": (
        f"[database]\n{DSN}\n\nport = 1\n[sumbission]\nlisten = []\n",
        [":4: database.port: is not a setting", ":5: sumbission: is not a setting"],
    ),
    "several at once, in the file's order": (
        f'[log]\nlevel = "loud"\n[database]\n{DSN}\nconnections = 1\n[control]\nmode = "9"\nsocket = "relayd.sock"\n',
        [
            ":2: log.level: expected 'debug', 'info', 'warning' or 'error'",
            ":5: database.connections: expected greater than or equal to 2",
            ":7: control.mode: expected a text that should match",
            ":8: control.socket: expected an absolute path",
        ],
    ),
    "verdicts that could lose mail or speak of everything": (
        f"[database]\n{DSN}\n"
        '[[verdicts]]\noutcome = "postponed"\nscope = "mailbox"\n'
        '[[verdicts]]\ncodes = ["250"]\noutcome = "sent"\nscope = "mailbox"\n'
        '[[verdicts]]\ncodes = ["554"]\nstages = ["auth"]\noutcome = "failed"\nscope = "message"\n'
        '[[verdicts]]\ncodes = ["554"]\noutcome = "failed"\nscope = "upstream"\n'
        '[[verdicts]]\ncodes = ["5xx"]\nhttp = ["500"]\noutcome = "deferred"\nscope = "mailbox"\n'
        '[[verdicts]]\ntext = "x"\noutcome = "deferred"\nscope = "upstream"\nlimit = "day"\nhold_seconds = 0\n',
        [
            ":4: verdicts.0.outcome: expected codes, enhanced, text or http beside it",
            ":7: verdicts.1.codes.0: expected a text that should match pattern",
            ":8: verdicts.1.outcome: expected 'deferred', 'failed' or 'postponed'",
            ":13: verdicts.2.outcome: expected deferred or postponed: before MAIL",
            ":18: verdicts.3.scope: expected message or recipient with failed",
            ":21: verdicts.4.http: expected either stages, codes and enhanced for SMTP",
            ":23: verdicts.4.scope: expected postponed with mailbox",
            ":28: verdicts.5.limit: expected postponed with upstream or mailbox beside it",
            ":29: verdicts.5.hold_seconds: expected greater than or equal to 1",
        ],
    ),
    "arrays of tables": (
        f'[[trusted_networks]]\nnetwork = "10.0.0.0/8"\nclient = "a"\n\n[[trusted_networks]]\nnetwork = "10.0.0.1/8"\n'
        f"[database]\n{DSN}\n",
        [
            ":5: trusted_networks.1.client: is required and missing",
            ':6: trusted_networks.1.network: expected a network such as "10.0.0.0/8"',
        ],
    ),
    "a table inside an array of tables": (
        f'[[trusted_networks]]\nnetwork = "10.0.0.0/8"\nclient = "a"\n[trusted_networks.extra]\n[database]\n{DSN}\n',
        [":4: trusted_networks.0.extra: is not a setting"],
    ),
    "dotted keys, spaces and quotes in them": (
        f'database.{DSN}\nsubmission . max_recipients = 0\n"http"."listen" = "nowhere"\n',
        [":2: submission.max_recipients: expected greater", f":3: http.listen: {ENDPOINT}"],
    ),
    "multi-line strings": (
        f'hostname = """\n[http]\nlisten = \\"""\n"""\n[database]\n{DSN}\n[http]\nlisten = "x"\n',
        [":1: hostname: expected a text", f":8: http.listen: {ENDPOINT}"],
    ),
    "multi-line literal strings that end in a quote": (
        f"hostname = '''\n[http]''''\n[database]\n{DSN}\n[http]\nlisten = 'x'\n",
        [":1: hostname: expected a text", f":6: http.listen: {ENDPOINT}"],
    ),
    "quotes in comments and strings": (
        f'[database] # it\'s [not] a """ string\n{DSN}\n[log]\nlevel = "\'\'\'"\n[http]\nlisten = \'x\' # """\n',
        [":4: log.level: expected", f":6: http.listen: {ENDPOINT}"],
    ),
    "an element of a list over several lines": (
        f'[database]\n{DSN}\n[submission]\nlisten = [ # two\n  "127.0.0.1:587",\n\n  "example.com:587",\n]\n',
        [":7: submission.listen.1: expected an IP address"],
    ),
    "inline tables": (
        f'database = {{ {DSN}, connections = 1 }}\ntrusted_networks = [\n{{ network = "x", client = "a" }},\n]\n',
        [":1: database.connections: expected greater", ":3: trusted_networks.0.network: expected a network"],
    ),
    "Windows line ends": (f'[database]\r\n{DSN}\r\n[http]\r\nlisten = "x"\r\n', [f":4: http.listen: {ENDPOINT}"]),
    "a line separator that is no line end": (
        f'# a\u2028b\n[database]\n{DSN}\n[http]\nlisten = "x"\n',
        [f":5: http.listen: {ENDPOINT}"],
    ),
    "values of another type": (
        f'[database]\n{DSN}\nconnections = true\nconnect_timeout_seconds = "3"\nacquire_timeout_seconds = nan\n'
        "[submission]\nallow_plaintext_auth = 1\nlisten = 587\n[log]\nlevel = 2024-01-01\n",
        [
            ":3: database.connections: expected a valid integer",
            ":4: database.connect_timeout_seconds: expected a valid number",
            ":5: database.acquire_timeout_seconds: expected",
            ":7: submission.allow_plaintext_auth: expected a valid boolean",
            ":8: submission.listen: expected",
            ":10: log.level: expected",
        ],
    ),
    "a value in place of a table": ("database = 5\n", [":1: database: expected a table"]),
    "addresses": (
        f'[database]\n{DSN}\n[submission]\nlisten = ["127.0.0.1:65536", "::1:587", "[10.0.0.1]:25", "10.0.0.1:²"]\n',
        [
            f":4: submission.listen.0: {ENDPOINT}",
            ":4: submission.listen.1: expected brackets",
            ":4: submission.listen.2: expected brackets",
            f":4: submission.listen.3: {ENDPOINT}",
        ],
    ),
    "a certificate without its key, beside another error": (
        f'[database]\n{DSN}\n[submission]\ntls_certificate = "/a.pem"\nmax_recipients = 0\n',
        [
            ":3: submission.tls_key: expected tls_certificate and tls_key together",
            ":5: submission.max_recipients: expected greater",
        ],
    ),
    "a key without its certificate": (
        f'[database]\n{DSN}\n[submission]\ntls_key = "/a.pem"\n',
        [":4: submission.tls_key: expected tls_certificate and tls_key together"],
    ),
    "implicit TLS without a certificate": (
        f'[database]\n{DSN}\n[submission]\nlisten_implicit_tls = ["[::]:465"]\n',
        [":4: submission.listen_implicit_tls: expected tls_certificate and tls_key"],
    ),
    "nowhere to listen": (
        f"[database]\n{DSN}\n[submission]\nlisten = []\n",
        [":3: submission.listen_implicit_tls: expected an address in listen"],
    ),
    "two sources of one secret": (
        f'[database]\n{DSN}\npassword_file = "/a"\npassword_credential = "a"\n'
        '[seal]\nkey_file = "/a"\nkey_credential = "../a"\n',
        [
            ":4: database.password_credential: expected one of password_credential and password_file",
            ":7: seal.key_credential: expected a text that should match",
        ],
    ),
    "a trust that is not used": (
        f'[database]\n{DSN}\ntls_ca_file = "/ca.pem"\n',
        [':3: database.tls_ca_file: expected database.tls = "verify-ca"'],
    ),
    "retries that grow shorter": (
        f"[database]\n{DSN}\n[delivery]\nfirst_retry_seconds = 600\nlongest_retry_seconds = 60\n",
        [":5: delivery.longest_retry_seconds: expected a delay not shorter than first_retry_seconds"],
    ),
    "records that nobody can publish": (
        f'[database]\n{DSN}\n[publish]\nspf_hosts = ["192.0.2.1"]\nmx_host = "a b"\ndmarc_rua = "me"\n',
        [
            ":4: publish.spf_hosts: '192.0.2.1' is not an SPF mechanism",
            ":5: publish.mx_host: 'a b' is not a domain",
            ":6: publish.dmarc_rua: 'me' is not an address",
        ],
    ),
    "a path with NUL in it": (
        f'[database]\n{DSN}\n[seal]\nkey_file = "/a\\u0000b"\n',
        [":4: seal.key_file: expected an absolute path"],
    ),
    "syntax": ("[database]\ndsn = hunter2\n", [":2: not valid TOML: Invalid value"]),
    "a key twice": (f"[database]\n{DSN}\n{DSN}\n", [":3: not valid TOML: Cannot overwrite a value"]),
    "an open string at the end": ('[database]\ndsn = """hunter2\n\n', [":2: not valid TOML: "]),
    "a number of 5,000 digits": (f"processes = {'1' * 5000}\n", [": not valid TOML: a number too long"]),
    "lists without end": ("listen = " + "[" * 100_000, [": not valid TOML: "]),
}


def errors_of(path: Path) -> list[str]:
    """The lines without the file's name. Whatever is wrong, a value never shows, not in a traceback either."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    return [line.removeprefix(str(path)) for line in str(caught.value).split("\n")]


@pytest.mark.parametrize(("text", "expected"), WRONG.values(), ids=WRONG.keys())
def test_every_error_names_its_line_and_key(text: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "relayd.toml"
    path.write_bytes(text.encode())
    errors = errors_of(path)
    assert [error[: len(wanted)] for error, wanted in zip(errors, expected, strict=True)] == expected


@pytest.mark.parametrize(
    "text",
    [
        '[database]\ndsn = "mysql://relayd:hunter2@db/relayd"\n',
        '[database]\ndsn = "postgresql://relayd:hunter2/@db/relayd"\n',
        '[database]\ndsn = "postgresql://relayd@db:hunter2/relayd"\n',
        '[database]\ndsn = ["hunter2"]\npassword = "hunter2"\n',
        '[database]\ndsn = "hunter2\n',
        f'[database]\n{DSN}\npassword_file = "hunter2"\npassword_credential = "hunter2/"\n',
        f'[database]\n{DSN}\n[seal]\nkey_file = "hunter2"\nkey_credential = " hunter2"\nkey = "hunter2"\n',
    ],
)
def test_no_value_is_repeated(text: str, tmp_path: Path) -> None:
    path = tmp_path / "relayd.toml"
    path.write_text(text)
    errors_of(path)


def test_missing_file_says_where_to_start(tmp_path: Path) -> None:
    assert errors_of(tmp_path / "relayd.toml") == [
        ": cannot be read: No such file or directory; copy config.example.toml to start one"
    ]


def test_directory_and_unreadable_text(tmp_path: Path) -> None:
    assert errors_of(tmp_path)[0].startswith(": cannot be read: Is a directory")
    path = tmp_path / "relayd.toml"
    path.write_bytes(b'node = "\xff"')
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "relayd.toml"
    path.touch(mode=0)
    assert errors_of(path)[0].startswith(": cannot be read: Permission denied")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "relayd.toml"
    path.write_bytes(b"\xef\xbb\xbf[database]\n" + DSN.encode())
    assert load(path).database.dsn.startswith("postgresql:")


def test_http_can_be_switched_off(tmp_path: Path) -> None:
    path = tmp_path / "relayd.toml"
    path.write_text(f'[database]\n{DSN}\n[http]\nlisten = "off"\n')
    assert load(path).http.listen is None


def test_whole_numbers_serve_as_seconds(tmp_path: Path) -> None:
    path = tmp_path / "relayd.toml"
    path.write_text(f"[database]\n{DSN}\n[delivery]\ndrain_seconds = 5\n")
    assert load(path).delivery.drain_seconds == 5.0


def test_lines_of_keys() -> None:
    text = 'a.b = 1\n[c."d.e"]\nf = [\n 1,\n {g = 2}]\n[[h]]\n[[h.i]]\n[[h.i]]\nj = 1979-05-27 07:32:00 # k = 1\n'
    assert key_lines(text) == {
        ("a",): 1,
        ("a", "b"): 1,
        ("c", "d.e"): 2,
        ("c", "d.e", "f"): 3,
        ("c", "d.e", "f", 0): 4,
        ("c", "d.e", "f", 1): 5,
        ("c", "d.e", "f", 1, "g"): 5,
        ("h",): 6,
        ("h", 0): 6,
        ("h", 0, "i"): 7,
        ("h", 0, "i", 0): 7,
        ("h", 0, "i", 1): 8,
        ("h", 0, "i", 1, "j"): 9,
    }
    assert line_of(key_lines(text), ("h", 0, "i", 1, "missing")) == 8
    assert line_of({}, ("missing",)) == 1
