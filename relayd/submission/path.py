"""The arguments of MAIL and RCPT, parsed strictly into addresses (RFC 5321 4.1.2). Pure.

An address may come without its angle brackets, as long as nothing else could be meant.

What cannot be parsed comes back as a `Fault`: the reply, and the label under which it is counted.
"""

import re
from dataclasses import dataclass

from relayd.mail.address import Address
from relayd.mail.envelope import NOTHING_SAID, RecipientNotice
from relayd.mail.reply import Reply
from relayd.rules.session_events import Reason
from relayd.submission import notices

# A source route is read and ignored (RFC 5321 F.2). A quoted local part may hold a `>`.
_ROUTE = r"(?:@[A-Za-z0-9.-]+(?:,@[A-Za-z0-9.-]+)*:)?"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PATH = re.compile(
    rf'(?:FROM|TO): *(?:<{_ROUTE}(?P<mailbox>(?:{_QUOTED}|[^">])*)>|{_ROUTE}(?P<bare>(?:{_QUOTED}|[^"<>\s])+))'
    r"(?: +(?P<parameters>\S.*))? *\Z",
    re.IGNORECASE,
)
_POSTMASTER = "postmaster"
_PARAMETER = re.compile(r"(?P<keyword>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[^\x00-\x20=\x7f]+))?\Z")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an argument is refused. `detail` is for the log."""

    reply: Reply
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Mail:
    """What MAIL says. `size_octets` is what the client announces, 0 if nothing; for the rest see `Envelope`."""

    reverse_path: Address | None
    size_octets: int = 0
    body_8bitmime: bool = False
    smtputf8: bool = False
    dsn_ret: str | None = None
    envelope_id: str | None = None


@dataclass(frozen=True, slots=True)
class Recipient:
    """What RCPT says."""

    forward_path: Address
    notice: RecipientNotice = NOTHING_SAID


def parse_mail(argument: str, *, is_extended: bool) -> Mail | Fault:
    """Parse `FROM:<reverse-path> [parameters]`."""
    parts = _split("FROM:", argument, is_extended)
    if isinstance(parts, Fault):
        return parts
    mailbox, parameters = parts
    size_octets, body_8bitmime, smtputf8, dsn_ret, envelope_id = 0, False, False, None, None
    for keyword, value in parameters.items():
        try:
            match keyword:
                case "SIZE" if value is not None and re.fullmatch("[0-9]{1,20}", value):
                    size_octets = int(value)
                case "BODY" if value is not None and value.upper() in {"7BIT", "8BITMIME"}:
                    body_8bitmime = value.upper() == "8BITMIME"
                case "SMTPUTF8" if value is None:
                    smtputf8 = True
                case "RET" if value is not None:
                    dsn_ret = notices.parse_ret(value)
                case "ENVID" if value is not None:
                    envelope_id = notices.parse_envelope_id(value)
                case "AUTH" if value is not None:
                    pass  # RFC 4954 5: who first submitted it; of no use to a relay that decides by login
                case "SIZE" | "SMTPUTF8" | "AUTH" | "RET" | "ENVID":
                    return _bad_value(keyword, argument)
                case _:
                    return _unsupported(argument)
        except ValueError:
            return _bad_value(keyword, argument)
    reverse_path = _address(mailbox, "5.1.7", smtputf8=smtputf8) if mailbox else None
    if isinstance(reverse_path, Fault):
        return reverse_path
    return Mail(reverse_path, size_octets, body_8bitmime, smtputf8, dsn_ret, envelope_id)


def parse_rcpt(argument: str, *, is_extended: bool, smtputf8: bool, postmaster_domain: str) -> Recipient | Fault:
    """Parse `TO:<forward-path> [parameters]`. `<Postmaster>` alone (RFC 5321 4.5.1) is that of `postmaster_domain`."""
    parts = _split("TO:", argument, is_extended)
    if isinstance(parts, Fault):
        return parts
    mailbox, parameters = parts
    notify, orcpt = None, None
    for keyword, value in parameters.items():
        try:
            match keyword:
                case "NOTIFY" if value is not None:
                    notify = notices.parse_notify(value)
                case "ORCPT" if value is not None:
                    orcpt = notices.parse_original_recipient(value, smtputf8=smtputf8)
                case "NOTIFY" | "ORCPT":
                    return _bad_value(keyword, argument)
                case _:
                    return _unsupported(argument)
        except ValueError:
            return _bad_value(keyword, argument)
    if mailbox.lower() == _POSTMASTER:
        mailbox = f"{mailbox}@{postmaster_domain}"
    forward_path = _address(mailbox, "5.1.3", smtputf8=smtputf8)
    return forward_path if isinstance(forward_path, Fault) else Recipient(forward_path, RecipientNotice(notify, orcpt))


def _split(keyword: str, argument: str, is_extended: bool) -> tuple[str, dict[str, str | None]] | Fault:
    match = _PATH.match(argument)
    syntax = f"Syntax: {'MAIL' if keyword == 'FROM:' else 'RCPT'} {keyword}<address>"
    if match is None or not argument.upper().startswith(keyword):
        return Fault(Reply(501, "5.5.2", syntax), Reason.BAD_SYNTAX, argument)
    parameters: dict[str, str | None] = {}
    for text in (match["parameters"] or "").split():
        parameter = _PARAMETER.match(text)
        if parameter is None or parameter["keyword"].upper() in parameters:
            reply = Reply(501, "5.5.4", f"Malformed or repeated parameter. {syntax} KEYWORD=value")
            return Fault(reply, Reason.BAD_PARAMETER, argument)
        parameters[parameter["keyword"].upper()] = parameter["value"]
    if parameters and not is_extended:
        return Fault(Reply(555, "5.5.4", "Parameters need EHLO"), Reason.BAD_PARAMETER, argument)
    return match["bare"] or match["mailbox"], parameters


def _bad_value(keyword: str, argument: str) -> Fault:
    return Fault(Reply(501, "5.5.4", f"Bad value of {keyword}"), Reason.BAD_PARAMETER, argument)


def _unsupported(argument: str) -> Fault:
    return Fault(Reply(555, "5.5.4", "Parameter not supported"), Reason.BAD_PARAMETER, argument)


def _address(mailbox: str, enhanced: str, *, smtputf8: bool) -> Address | Fault:
    try:
        address = Address.parse(mailbox)
    except ValueError as error:
        return Fault(Reply(553, enhanced, f"Bad address: {error}"), Reason.BAD_ADDRESS, mailbox)
    if not (smtputf8 or address.is_ascii):
        return Fault(Reply(553, "5.6.7", "Non-ASCII address without SMTPUTF8"), Reason.BAD_ADDRESS, mailbox)
    return address
