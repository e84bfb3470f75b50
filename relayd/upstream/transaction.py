"""One SMTP transaction: one message, all its recipients, one outcome for each."""

from collections.abc import Mapping
from dataclasses import replace

from aiosmtplib import SMTPResponse

from relayd import failpoints
from relayd.mail.envelope import NOTHING_SAID, Transmission
from relayd.rules.outcome import Outcome, Postponed, Scope, Sent, Stage, Uncertain
from relayd.upstream.connection import Connection
from relayd.upstream.notices import mail_parameters, recipient_parameters
from relayd.upstream.verdict import judge_reply, refuse


async def transact(connection: Connection, transmission: Transmission) -> tuple[Outcome, ...] | None:
    """Outcomes in the order of the recipients. Raises CancelledError alone.

    None: a connection that had been idle was dead when MAIL was sent. Nothing was tried; take a new one.
    """
    outcomes = refuse_what_cannot_pass(connection.extensions, transmission)
    if len(outcomes) == len(transmission.recipients):
        return _in_order(transmission, outcomes, None)
    is_reused = connection.transactions > 0
    connection.transactions += 1
    try:
        rest = await _send(connection, transmission, outcomes)
    except Exception as error:
        rest = connection.judge(error)
        if is_reused and connection.stage is Stage.MAIL and isinstance(error, ConnectionError):
            return None
    if rest is not None and is_reused and rest.cause.stage is Stage.MAIL and rest.cause.code == 421:
        # It timed out while idle and said so just as we began: the same as dead.
        return None
    if rest is not None and _speaks_of_upstream(rest):
        connection.abort()
    else:
        await connection.hear_out()
    return _in_order(transmission, outcomes, rest)


async def _send(connection: Connection, transmission: Transmission, outcomes: dict[int, Outcome]) -> Outcome | None:
    """Put what became of single recipients into `outcomes`; return what became of all the others."""
    is_pipelined = "pipelining" in connection.extensions
    if is_pipelined:
        asked = [index for index in range(len(transmission.recipients)) if index not in outcomes]
        recipients = [rcpt_command(connection.extensions, transmission, index) for index in asked]
        connection.say(Stage.MAIL, [mail_command(connection.extensions, transmission), *recipients, b"DATA"])
    outcome = await _converse(connection, transmission, outcomes, is_pipelined=is_pipelined)
    return replace(outcome, dsn_passed="dsn" in connection.extensions) if isinstance(outcome, Sent) else outcome


async def _converse(
    connection: Connection,
    transmission: Transmission,
    outcomes: dict[int, Outcome],
    *,
    is_pipelined: bool,
) -> Outcome | None:
    async def reply(stage: Stage, command: bytes) -> SMTPResponse:
        return await (connection.hear(stage) if is_pipelined else connection.ask(stage, command))

    response = await reply(Stage.MAIL, mail_command(connection.extensions, transmission))
    if not _is_positive(response):
        return judge_reply(Stage.MAIL, response.code, response.message, rules=connection.rules)
    connection.in_transaction = True

    accepted = 0
    for index in range(len(transmission.recipients)):
        if index in outcomes:
            continue
        response = await reply(Stage.RCPT, rcpt_command(connection.extensions, transmission, index))
        if _is_positive(response):
            accepted += 1
            continue
        outcome = judge_reply(
            Stage.RCPT, response.code, response.message, some_accepted=accepted > 0, rules=connection.rules
        )
        if _speaks_of_upstream(outcome):
            return outcome
        outcomes[index] = outcome
        if isinstance(outcome, Postponed) and not is_pipelined:
            # The transaction is full: asking for the others would only repeat the answer.
            untried = range(index + 1, len(transmission.recipients))
            outcomes.update({later: outcome for later in untried if later not in outcomes})
            break
    if not accepted:
        return None

    failpoints.reach("upstream-data-before")
    response = await reply(Stage.DATA, b"DATA")
    if response.code != 354:
        return judge_reply(
            Stage.DATA, response.code, response.message, is_sole_recipient=accepted == 1, rules=connection.rules
        )
    response = await connection.send_content(transmission.content)
    connection.in_transaction = False
    return judge_reply(
        connection.stage,
        response.code,
        response.message,
        is_sole_recipient=accepted == 1,
        rules=connection.rules,
    )


def _speaks_of_upstream(outcome: Outcome) -> bool:
    """Whether it holds for every recipient, and leaves a connection that is better not used again."""
    match outcome:
        case Sent():
            return False
        case Uncertain():
            return True
        case _:
            return outcome.scope is Scope.UPSTREAM


def refuse_what_cannot_pass(extensions: Mapping[str, str], transmission: Transmission) -> dict[int, Outcome]:
    """Recipients that this upstream cannot serve, known from its EHLO alone."""
    everyone = range(len(transmission.recipients))
    refusal = _refuse_message(extensions, transmission)
    if refusal is not None:
        return dict.fromkeys(everyone, refusal)
    if "smtputf8" in extensions:
        return {}
    refusal = refuse(Scope.RECIPIENT, "5.6.7", "the address needs SMTPUTF8, which the upstream does not offer")
    return {index: refusal for index in everyone if transmission.recipients[index].needs_smtputf8}


def mail_command(extensions: Mapping[str, str], transmission: Transmission) -> bytes:
    """MAIL with every parameter that is offered and of use."""
    command = f"MAIL FROM:<{transmission.reverse_path.wire if transmission.reverse_path else ''}>"
    if "size" in extensions:
        command += f" SIZE={_wire_octets(transmission.content)}"
    if "8bitmime" in extensions and (transmission.body_8bitmime or not transmission.content.isascii()):
        command += " BODY=8BITMIME"
    if _speaks_smtputf8(extensions, transmission):
        command += " SMTPUTF8"
    if "dsn" in extensions:
        command += mail_parameters(transmission)
    return command.encode()


def rcpt_command(extensions: Mapping[str, str], transmission: Transmission, index: int) -> bytes:
    """RCPT of one of the recipients, with what its sender wants to be told."""
    command = f"RCPT TO:<{transmission.recipients[index].wire}>"
    if "dsn" in extensions:
        notice = transmission.notices[index] if transmission.notices else NOTHING_SAID
        is_ascii = notice.orcpt is None or notice.orcpt.isascii()
        command += recipient_parameters(notice, smtputf8=not is_ascii and _speaks_smtputf8(extensions, transmission))
    return command.encode()


def _refuse_message(extensions: Mapping[str, str], transmission: Transmission) -> Outcome | None:
    size, limit = _wire_octets(transmission.content), _size_limit(extensions)
    if limit and size > limit:
        # RFC 1870 6.1
        return refuse(Scope.MESSAGE, "5.3.4", f"the message has {size} octets, the upstream takes {limit}")
    if "smtputf8" not in extensions:
        # RFC 6531 3.5, RFC 5248
        if transmission.reverse_path is not None and transmission.reverse_path.needs_smtputf8:
            text = "the sender's address needs SMTPUTF8, which the upstream does not offer"
            return refuse(Scope.MESSAGE, "5.6.7", text)
        if transmission.smtputf8 and not _header(transmission.content).isascii():
            text = "the header needs SMTPUTF8, which the upstream does not offer"
            return refuse(Scope.MESSAGE, "5.6.9", text)
    # RFC 6152 3; who offers SMTPUTF8 takes eight bits, too (RFC 6531 3.1).
    takes_octets = "8bitmime" in extensions or _speaks_smtputf8(extensions, transmission)
    if not takes_octets and not transmission.content.isascii():
        text = "the message has 8-bit characters, and the upstream does not offer 8BITMIME"
        return refuse(Scope.MESSAGE, "5.6.3", text)
    return None


def _speaks_smtputf8(extensions: Mapping[str, str], transmission: Transmission) -> bool:
    return "smtputf8" in extensions and _wants_smtputf8(transmission)


def _wants_smtputf8(transmission: Transmission) -> bool:
    addresses = (transmission.reverse_path, *transmission.recipients)
    return transmission.smtputf8 or any(address is not None and address.needs_smtputf8 for address in addresses)


def _wire_octets(content: bytes) -> int:
    """RFC 1870 3: with the last line's end, without the dots that transparency adds."""
    return len(content) if content.endswith(b"\r\n") else len(content) + 2


def _size_limit(extensions: Mapping[str, str]) -> int | None:
    """None if there is no limit, or none that can be read; 0 says so too (RFC 1870 4)."""
    value = extensions.get("size", "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 20 else None


def _header(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[0]


def _is_positive(response: SMTPResponse) -> bool:
    return 200 <= response.code <= 299


def _in_order(transmission: Transmission, outcomes: Mapping[int, Outcome], rest: Outcome | None) -> tuple[Outcome, ...]:
    ordered = [outcomes.get(index, rest) for index in range(len(transmission.recipients))]
    assert all(outcome is not None for outcome in ordered)
    return tuple(outcome for outcome in ordered if outcome is not None)
