"""Look at Google as an upstream sees it, without sending anything: who is let in, for what, and by which clock."""

import asyncio
import json
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime

from relayd.mail.address import Address
from relayd.rules.outcome import Cause, Stage
from relayd.upstream.connection import Connection
from relayd.upstream.findings import Finding, ok, problem, unknown
from relayd.upstream.grant_http import GrantHttp
from relayd.upstream.grants import Grant
from relayd.upstream.handshake import make_tls_context, open_connection
from relayd.upstream.http import HttpClient, HttpFailure, HttpReply
from relayd.upstream.settings import SmarthostSettings
from relayd.upstream.smarthost import Identity
from relayd.upstream.tokens import GrantDead, TokenSource, TokenUnavailable
from relayd.upstream.verdict import Unfit, clean, judge_exception, judge_reply

MOST_SKEW_SECONDS = 60.0
FETCH_SECONDS = 15.0
_RELAY = "Admin console (admin.google.com): Apps, Google Workspace, Gmail, Routing, SMTP relay service"
_DELEGATION = "Admin console: Security, Access and data control, API controls, Domain-wide delegation"


async def check_smtp(settings: SmarthostSettings, identity: Identity, sender: Address) -> Finding:
    """Connect, log in, and offer a message from `sender` to itself, up to RCPT: nothing is sent."""
    name = "connect and relay"
    try:
        tls = await asyncio.to_thread(make_tls_context, settings) if settings.tls != "none" else None
    except Unfit as error:
        return problem(name, str(error), "relayd upstream set says what can be set")
    opened = await open_connection(identity.applied(settings), tls)
    if not isinstance(opened, Connection):
        return _refused(name, opened.cause, settings)
    try:
        for stage, command in ((Stage.MAIL, f"MAIL FROM:<{sender}>"), (Stage.RCPT, f"RCPT TO:<{sender}>")):
            reply = await opened.ask(stage, command.encode())
            if not 200 <= reply.code <= 299:
                return _refused(name, judge_reply(stage, reply.code, reply.message).cause, settings)
    except Exception as error:
        return _refused(name, opened.judge(error).cause, settings)
    finally:
        await opened.quit()
    return ok(name, f"{settings.host} would take mail of {sender} (EHLO {identity.ehlo_name or settings.ehlo_name})")


async def check_scope(grant: Grant, tls: ssl.SSLContext | None, subject: str, scope: str) -> Finding:
    """Whether a service account gets a token of this one scope for an account. It is used for nothing."""
    name = f"delegation of {scope}"
    loop = asyncio.get_running_loop()
    try:
        await asyncio.to_thread(grant.fetch, GrantHttp(loop, tls, loop.time() + FETCH_SECONDS), subject)
    except GrantDead as error:
        return problem(name, str(error), f"{_DELEGATION}: give the client ID this scope; it may take some minutes")
    except TokenUnavailable as error:
        return problem(name, str(error), f"is {subject} a user of the domain that has the delegation?")
    return ok(name, f"a token for {subject}")


async def check_token(tokens: TokenSource, subject: str | None) -> tuple[Finding, str | None]:
    """Whether there is a token, and it."""
    name = "token"
    try:
        token = await tokens.token(subject)
    except GrantDead as error:
        return problem(name, str(error), "do as it says, then look again"), None
    except TokenUnavailable as error:
        return unknown(name, str(error)), None
    return ok(name, f"there is one for {subject}" if subject else "there is one"), token


async def check_send_as(http: HttpClient, api_url: str, token: str, account: str, senders: Sequence[str]) -> Finding:
    """Whether an account may send as these addresses; Gmail writes its own into From otherwise."""
    name = f"send-as of {account}"
    url = f"{api_url}/gmail/v1/users/me/settings/sendAs"
    try:
        reply = await http.request("GET", url, headers={"Authorization": f"Bearer {token}"})
    except HttpFailure as failure:
        return unknown(name, judge_exception(failure.stage, failure.error).cause.text)
    allowed = _send_as(reply)
    if allowed is None:
        return unknown(name, f"Gmail's API answered {reply.status}", "is the Gmail API on in the project, and allowed?")
    missing = [sender for sender in senders if sender.lower() not in allowed]
    if missing:
        cure = (
            f"Gmail settings of {account}: Accounts, Send mail as: add and confirm them; or one login for each mailbox"
        )
        return problem(name, f"it may not send as {', '.join(missing)}", cure)
    return ok(name, f"it may send as {', '.join(senders) or account}")


async def check_clock(http: HttpClient, token_url: str, now: Callable[[], datetime]) -> Finding:
    """Our clock against the token server's: tokens of a service account are signed with the time."""
    name = "clock"
    try:
        reply = await http.request("GET", token_url)
        theirs = parsedate_to_datetime(reply.headers.get("Date", ""))
    except HttpFailure as failure:
        return unknown(name, f"the token server: {judge_exception(failure.stage, failure.error).cause.text}")
    except (ValueError, TypeError):
        return unknown(name, "the token server says no time")
    skew = (now() - theirs).total_seconds()
    if abs(skew) > MOST_SKEW_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        what = f"this machine's clock is {abs(skew):.0f} s {way} the token server's"
        return problem(name, what, "set it by NTP: timedatectl set-ntp true")
    return ok(name, f"within {MOST_SKEW_SECONDS:.0f} s of the token server's")


def _refused(name: str, cause: Cause, settings: SmarthostSettings) -> Finding:
    said = f"{settings.host} at {cause.stage}: " + " ".join(str(part) for part in (cause.code, cause.text) if part)
    text = cause.text.lower()
    match cause.stage, cause.code:
        case Stage.CONNECT, None:
            cure = f"may this machine reach {settings.host}:{settings.port}? Firewalls often close 25, seldom 587"
        case ((Stage.CONNECT | Stage.EHLO), _):
            cure = f"the EHLO name has to be a domain of your account; and {_RELAY}: allow this machine's address"
        case Stage.STARTTLS, _:
            cure = "is it Google's server? Its certificate is verified; see --ca-file and --tls"
        case Stage.AUTH, _:
            cure = "see the token's check; a password has to be an app password, with 2-step verification on"
        case _, (421 | 530 | 550 | 553) if (
            "relay" in text or "5.7" in text or "4.7" in text or cause.code in (421, 530)
        ):
            cure = (
                f"{_RELAY}: allow this machine's address, or require SMTP authentication and log in; wait some minutes"
            )
        case _:
            cure = f"relayd upstream verdict tells what the reply means; {_RELAY}: which senders are allowed?"
    return problem(name, clean(said), cure)


def _send_as(reply: HttpReply) -> set[str] | None:
    try:
        items = json.loads(reply.content)["sendAs"] if reply.status == 200 else None
        return None if items is None else {str(item["sendAsEmail"]).lower() for item in items}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
