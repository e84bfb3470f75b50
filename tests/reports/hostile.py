"""Fifty reports that strangers make to cost time: what each costs to read. `python -m tests.reports.hostile`."""

import argparse
import base64
import time
from collections.abc import Callable

from relayd.mail import report_reader
from relayd.mail.work_budget import REPORT_STEPS, WorkBudget

OCTETS = 1_000_000

Shape = Callable[[], bytes]

_TOP = b"From: MAILER-DAEMON@mx.example\r\nTo: bounces@example.com\r\nSubject: Undelivered Mail Returned to Sender\r\n"
_REPORT = _TOP + b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
_STATUS = b"\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n"


def _fill(unit: bytes, octets: int = OCTETS) -> bytes:
    return unit * (octets // len(unit) + 1)


def _numbered(pattern: str, octets: int = OCTETS) -> bytes:
    lines, size, number = [], 0, 0
    while size < octets:
        lines.append(pattern.replace("#", str(number)).encode())
        size += len(lines[-1])
        number += 1
    return b"".join(lines)


def _plain(text: bytes) -> bytes:
    return _TOP + b"\r\n" + text


def _html(text: bytes) -> bytes:
    return _TOP + b"Content-Type: text/html\r\n\r\n" + text


def _dsn(text: bytes, fields: bytes) -> bytes:
    return _REPORT + b"--b\r\nContent-Type: text/plain\r\n\r\n" + text + _STATUS + fields + b"\r\n--b--\r\n"


def _recipients(count: int, extra: str = "") -> bytes:
    return b"".join(
        f"Final-Recipient: rfc822; r{number}@b.cc\r\nAction: failed\r\nStatus: 5.0.0\r\n{extra}\r\n".encode()
        for number in range(count)
    )


def _nested(depth: int, kind: str) -> bytes:
    begin, end = [], []
    for level in range(depth):
        if kind == "message":
            begin.append(b"Content-Type: message/rfc822\r\n\r\n")
        else:
            begin.append(f"Content-Type: multipart/{kind}; boundary=n{level}\r\n\r\n--n{level}\r\n".encode())
            end.append(f"\r\n--n{level}--\r\n".encode())
    return _TOP + b"".join(begin) + b"Content-Type: text/plain\r\n\r\n" + _fill(b"a@b.cc 550 x\r\n") + b"".join(end)


def _parts(header: bytes, body: bytes) -> bytes:
    return _TOP + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + _fill(b"--b\r\n" + header + b"\r\n" + body)


def _base64(text: bytes) -> bytes:
    encoded = base64.encodebytes(text).replace(b"\n", b"\r\n")
    return _TOP + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded


def _charset(name: str, text: bytes) -> bytes:
    return _TOP + f"Content-Type: text/plain; charset={name}\r\n\r\n".encode() + text


# What the fifty are. Some are what a real system writes, a thousand times over.
SHAPES: dict[str, Shape] = {
    "1,300 lines with one address, 50 recipients": lambda: _dsn(b"a@b.cc 550 x\r\n" * 1300, _recipients(50)),
    "1,300 lines with many addresses, 50 recipients": lambda: _dsn(
        _numbered("r#@b.cc 550 x\r\n", 17_000), _recipients(50)
    ),
    "1,000 recipients, 1,300 lines": lambda: _dsn(b"a@b.cc 550 x\r\n" * 1300, _recipients(1000)),
    "lines that name all recipients": lambda: _dsn(
        (b" ".join(f"r{each}@b.cc".encode() for each in range(50)) + b" 550 x\r\n") * 40, _recipients(50)
    ),
    "recipients in turn, empty lines between": lambda: _dsn(_numbered("r#@b.cc:\r\n\r\n", 17_000), _recipients(50)),
    "replies above recipients": lambda: _dsn(_numbered("550 x\r\nr#@b.cc\r\n\r\n", 17_000), _recipients(50)),
    "recipients without addresses": lambda: _dsn(
        b"a@b.cc 550 x\r\n" * 1300, b"Action: failed\r\nStatus: 5.0.0\r\n\r\n" * 50
    ),
    "one recipient, replies to others": lambda: _dsn(_numbered("s#@b.cc 550 x\r\n", 17_000), _recipients(1)),
    "the same recipient 1,000 times": lambda: _dsn(
        b"a@b.cc 550 x\r\n" * 1300, b"Final-Recipient: rfc822; a@b.cc\r\nAction: failed\r\n\r\n" * 1000
    ),
    "megabyte of recipients": lambda: _dsn(b"x", _recipients(12_000)),
    "megabyte of status lines": lambda: _dsn(b"x", _fill(b"Status: 5.0.0\r\n")),
    "megabyte of folded status": lambda: _dsn(b"x", b"Status: 5\r\n" + _fill(b" 5.0.0\r\n")),
    "recipients with long diagnostics": lambda: _dsn(
        b"x", _recipients(250, "Diagnostic-Code: smtp; " + "550 5.1.1 " * 390 + "\r\n")
    ),
    "200 status parts": lambda: _REPORT + (_STATUS + _recipients(60)) * 250,
    "status fields in text": lambda: _plain(_recipients(12_000)),
    "plain addresses": lambda: _plain(_numbered("<r#@b.cc>: 550 5.1.1 x\r\n")),
    "one address a thousand times": lambda: _plain(_fill(b"<a@b.cc>: 550 5.1.1 no such user\r\n")),
    "addresses without end in a line": lambda: _plain(_numbered("r#@b.cc,")),
    "one line": lambda: _plain(_fill(b"x")),
    "one line of spaces": lambda: _plain(_fill(b" ")),
    "one line of @": lambda: _plain(_fill(b"@")),
    "one line of dots": lambda: _plain(b"a@" + _fill(b".")),
    "long local parts": lambda: _plain(_fill(b"a" * 64 + b"@" + b"b" * 253 + b".\r\n")),
    "empty lines": lambda: _plain(_fill(b"\r\n")),
    "replies alone": lambda: _plain(_fill(b"550 5.1.1 x\r\n")),
    "words of replies": lambda: _plain(_fill(b"said: reason: error: 550 \r\n")),
    "conditions": lambda: _plain(_fill(b"if until unless when ")),
    "words of delay": lambda: _plain(_fill(b"will be retried delayed has not been delivered yet warning ")),
    "quotations": lambda: _plain(_fill(b"On Tue, 1 Dec 2026 somebody wrote\r\n")),
    "12 messages within each other": lambda: _nested(12, "message"),
    "1,000 messages within each other": lambda: _nested(1000, "message"),
    "12 multiparts within each other": lambda: _nested(12, "mixed"),
    "1,000 multiparts within each other": lambda: _nested(1000, "alternative"),
    "reports within each other": lambda: _nested(12, "report; report-type=delivery-status"),
    "empty parts": lambda: _parts(b"", b"\r\n"),
    "text parts": lambda: _parts(b"Content-Type: text/plain\r\n", b"a@b.cc 550 x\r\n"),
    "HTML parts": lambda: _parts(b"Content-Type: text/html\r\n", b"<p>a@b.cc 550 x\r\n"),
    "boundary lines that are none": lambda: _REPORT + _fill(b"--" + b" " * 199 + b"x\r\n"),
    "no boundary, lines like one": lambda: (
        _TOP + b"Content-Type: multipart/mixed\r\n\r\n" + _fill(b"--" + b" " * 198 + b"\r\n")
    ),
    "boundary of 10,000 octets": lambda: (
        _TOP + b"Content-Type: multipart/mixed; boundary=" + b"x" * 10_000 + b"\r\n\r\n" + _fill(b"--" + b"x" * 300)
    ),
    "1,000,000 octets of header": lambda: _numbered("X-#: y\r\n") + _TOP + b"\r\nx",
    "one header field": lambda: b"X: " + _fill(b"y") + b"\r\n" + _TOP + b"\r\nx",
    "folded To of many": lambda: b"To: x@y.zz\r\n" + _numbered(" r#@b.cc,\r\n") + _TOP + b"\r\n550 5.1.1 x",
    "encoded words": lambda: b"Subject: " + _fill(b"=?utf-8?q?=41?= ") + b"\r\n" + _TOP + b"\r\nx",
    "Content-Type parameters": lambda: b"Content-Type: text/plain" + _fill(b"; a=b") + b"\r\n" + _TOP + b"\r\nx",
    "References": lambda: b"References: " + _numbered("<r#@b.cc> ") + b"\r\n" + _TOP + b"\r\n550 5.1.1 x",
    "HTML of tags": lambda: _html(_fill(b"<p>")),
    "HTML of <": lambda: _html(_fill(b"<")),
    "HTML of styles": lambda: _html(_fill(b"<style>")),
    "HTML of entities": lambda: _html(_fill(b"&#64;&ampampamp")),
    "base64 of addresses": lambda: _base64(_numbered("r#@b.cc 550 x\r\n", 700_000)),
    "quoted-printable": lambda: (
        _TOP + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + _fill(b"=40=\r\n")
    ),
    "ISO-2022-JP": lambda: _charset("iso-2022-jp", _fill(b"\x1b$B\x1b(B")),
    "UTF-7": lambda: _charset("utf-7", _fill(b"+AEA-")),
    "punycode": lambda: _charset("punycode", _fill(b"a-bc")),
    "feedback report": lambda: (
        _TOP
        + b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n"
        + b"Content-Type: message/feedback-report\r\n\r\n"
        + _numbered("Original-Rcpt-To: r#@b.cc\r\n")
    ),
}


def main() -> None:
    """Print the cost of each shape, the dearest first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="read each so often; the quickest counts")
    rounds = parser.parse_args().rounds
    costs = []
    for name, shape in SHAPES.items():
        content = shape()
        seconds = []
        for _ in range(rounds):
            budget = WorkBudget(REPORT_STEPS)
            began = time.process_time()
            report_reader.read(content, budget)
            seconds.append(time.process_time() - began)
        costs.append((min(seconds), budget.spent, len(content), name))
    print(f"{'CPU ms':>8} {'steps':>9} {'octets':>10}  shape")
    for cost, spent, octets, name in sorted(costs, reverse=True):
        print(f"{cost * 1000:8.1f} {spent:9,} {octets:10,}  {name}")
    print(f"{len(costs)} shapes, the dearest {max(costs)[0] * 1000:.0f} ms; budget {REPORT_STEPS:,} steps")


if __name__ == "__main__":
    main()
