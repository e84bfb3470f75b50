"""Handler of `doctor google`: every check of every Google upstream, at once. Nothing is sent, nothing is changed."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from relayd.control.route import Context, Request, Route, View
from relayd.control.upstream_login import trusting
from relayd.control.values import Key
from relayd.errors import BadValue
from relayd.mail.address import Address
from relayd.store import domains, mailboxes, oauth_tokens, upstreams
from relayd.store.oauth_tokens import TokenAges
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream import google_doctor
from relayd.upstream.code_exchange import GMAIL_URL
from relayd.upstream.findings import Finding, ok, problem, unknown
from relayd.upstream.google import identity_of
from relayd.upstream.granting import grant_of, token_source
from relayd.upstream.grants import TOKEN_URL
from relayd.upstream.http import HttpClient
from relayd.upstream.http import Timeouts as HttpTimeouts
from relayd.upstream.scopes import scopes_of
from relayd.upstream.settings import AuthMechanism, SmarthostSettings, Timeouts, Tls
from relayd.upstream.token_login import logs_in_by_token
from relayd.upstream.tokens import TokenSource

CHECK_SECONDS = 25.0
_TIMEOUTS = Timeouts(connect=8.0, command=8.0, data_block=8.0, dot=8.0)
_SENDERS = 20


class DoctorGoogle(Request):
    """`name`: one upstream; left out: all of Google's."""

    name: Key | None = None


class FindingView(View):
    """One check. `result` is ok, problem, or could not be checked; `cure` is what to do."""

    upstream: str
    check: str
    result: str
    what: str
    cure: str | None


class Findings(View):
    """In the order in which to mend them."""

    items: list[FindingView]


@dataclass(frozen=True, slots=True)
class _Patient:
    """An upstream with all that its checks need."""

    record: UpstreamRecord
    senders: tuple[str, ...]
    is_own_domain: bool
    ages: TokenAges
    settings: SmarthostSettings | None
    tokens: TokenSource

    @property
    def sender(self) -> Address | None:
        """Whose mail is offered."""
        named = self.senders[0] if self.senders else self.record.oauth_account or self.record.sender_address
        return Address.parse(named) if named else None

    @property
    def is_delegated(self) -> bool:
        """Each mailbox has a token of its own."""
        return self.record.google_service_account_sealed is not None


async def examine_google(context: Context, request: DoctorGoogle) -> Findings:
    """Takes as long as the slowest check, half a minute at most."""
    async with context.reading() as connection:
        if request.name is not None:
            records = [await upstreams.find(connection, request.name)]
            if records[0].provider_type != "google_workspace":
                raise BadValue(f"upstream {request.name} is {records[0].provider_type}, not Google's")
        else:
            records = [each for each in await upstreams.living(connection) if each.provider_type == "google_workspace"]
        own_domains = {each.domain for each in await domains.living(connection)}
        patients = []
        for record in records:
            found = await mailboxes.living(connection, upstream_id=record.id)
            ages = await oauth_tokens.ages(connection, record.id)
            senders = tuple(each.email_address for each in found[:_SENDERS])
            is_own = record.ehlo_name is None or record.ehlo_name.lower() in own_domains
            patients.append(_patient(context, record, senders, is_own, ages))
    findings = await asyncio.gather(*(_examine(context, patient) for patient in patients))
    return Findings(
        items=[
            FindingView(upstream=patient.record.name, **_fields(finding))
            for patient, found_here in zip(patients, findings, strict=True)
            for finding in found_here
        ]
    )


def _patient(
    context: Context, record: UpstreamRecord, senders: tuple[str, ...], is_own_domain: bool, ages: TokenAges
) -> _Patient:
    house = context.house
    tokens = token_source(record, house.seal, house.database, house.emit, time.monotonic)
    settings = _settings(context, record, tokens) if record.smtp_host is not None else None
    return _Patient(record, senders, is_own_domain, ages, settings, tokens)


async def _examine(context: Context, patient: _Patient) -> list[Finding]:
    record = patient.record
    try:
        tls = trusting(record.smtp_ca_file)
    except BadValue as error:
        return [problem("ca_file", str(error), f"relayd upstream set {record.name} --ca-file FILE")]
    http = HttpClient(max_connections=4, tls=tls, timeouts=HttpTimeouts(connect=8.0, total=15.0))
    by_token = logs_in_by_token(record)
    checks: list[Coroutine[Any, Any, list[Finding]]] = []
    if record.mode == "smtp-relay":
        checks.append(_ehlo_name(patient))
    if patient.settings is not None:
        checks.append(_smtp(patient, patient.settings))
    if by_token:
        checks.append(_token(http, patient))
        checks.append(_one(google_doctor.check_clock(http, record.token_url or TOKEN_URL, lambda: datetime.now(UTC))))
        checks += [_scope(context, patient, scope) for scope in scopes_of(record.mode) if patient.is_delegated]
    try:
        done = await asyncio.gather(*(_in_time(check) for check in checks))
    finally:
        await http.close()
    return [finding for found in done for finding in found]


async def _in_time(check: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check
    except TimeoutError:
        return [unknown("a check", f"no end within {CHECK_SECONDS:.0f} s")]


async def _one(check: Coroutine[Any, Any, Finding]) -> list[Finding]:
    return [await check]


async def _ehlo_name(patient: _Patient) -> list[Finding]:
    check, record, sender = "EHLO name", patient.record, patient.sender
    if record.ehlo_name is None:
        if sender is None:
            return [
                unknown(
                    check, "no mailbox sends through it yet", f"relayd mailbox add ADDRESS --upstream {record.name}"
                )
            ]
        return [ok(check, f"each domain's own, such as {sender.ascii_domain}")]
    if patient.is_own_domain:
        return [ok(check, f"{record.ehlo_name}, a sending domain")]
    try:
        await asyncio.get_running_loop().getaddrinfo(record.ehlo_name, None)
    except OSError:
        what = f"{record.ehlo_name} is no sending domain and does not resolve"
        return [problem(check, what, f"relayd upstream set {record.name} --ehlo-name DOMAIN, one of your account's")]
    cure = "Google knows a customer by a domain of the account: leave it out, and each domain's own is used"
    return [unknown(check, f"{record.ehlo_name} is no sending domain of relayd's", cure)]


async def _smtp(patient: _Patient, settings: SmarthostSettings) -> list[Finding]:
    if patient.sender is None:
        cure = f"relayd mailbox add ADDRESS --upstream {patient.record.name}"
        return [unknown("connect and relay", "no mailbox sends through it yet", cure)]
    identity = identity_of(
        patient.sender,
        greets_as_domain=patient.record.mode == "smtp-relay" and patient.record.ehlo_name is None,
        logs_in_as_mailbox=patient.is_delegated and settings.auth_mechanism == "XOAUTH2",
    )
    return [await google_doctor.check_smtp(settings, identity, patient.sender)]


async def _token(http: HttpClient, patient: _Patient) -> list[Finding]:
    record = patient.record
    subject = str(patient.sender) if patient.is_delegated and patient.sender else None
    if patient.is_delegated and subject is None:
        return [unknown("token", "no mailbox sends through it yet")]
    found, token = await google_doctor.check_token(patient.tokens, subject)
    findings = [found, _age(patient.ages)]
    account = subject or record.oauth_account
    if token is not None and account is not None:
        senders = [subject] if subject else list(patient.senders)
        api = record.api_url or GMAIL_URL
        findings.append(await google_doctor.check_send_as(http, api, token, account, senders))
    return findings


def _age(ages: TokenAges) -> Finding:
    if not ages.tokens or ages.oldest_seconds is None or ages.first_expires_seconds is None:
        return unknown("token age", "none had been fetched before")
    oldest, left = ages.oldest_seconds / 60, ages.first_expires_seconds / 60
    if left <= 0:
        return ok("token age", f"{ages.tokens} kept, one has ended unused: it is exchanged when next needed")
    return ok("token age", f"{ages.tokens} kept, the oldest {oldest:.0f} min old, the first ends in {left:.0f} min")


async def _scope(context: Context, patient: _Patient, scope: str) -> list[Finding]:
    if patient.sender is None:
        return [unknown(f"delegation of {scope}", "no mailbox sends through it yet")]
    grant = grant_of(patient.record, context.house.seal, (scope,))
    assert grant is not None
    tls = trusting(patient.record.smtp_ca_file)
    return [await google_doctor.check_scope(grant, tls, str(patient.sender), scope)]


def _settings(context: Context, record: UpstreamRecord, tokens: TokenSource) -> SmarthostSettings:
    assert record.smtp_host is not None
    by_token = logs_in_by_token(record)
    sealed = record.smtp_password_sealed
    password = context.house.seal.open(sealed, row=record.seal_row("smtp_password")).decode() if sealed else None
    return SmarthostSettings(
        host=record.smtp_host,
        port=record.smtp_port,
        tls=cast(Tls, record.smtp_tls),  # held by a CHECK
        ehlo_name=record.ehlo_name or "localhost",
        verify_certificate=record.smtp_verify_certificate,
        ca_file=record.smtp_ca_file,
        username=(record.oauth_account or record.smtp_username) if by_token else record.smtp_username,
        password=password,
        auth_mechanism="XOAUTH2" if by_token else cast(AuthMechanism | None, record.smtp_auth_mechanism),
        tokens=tokens,
        allow_plaintext_auth=record.smtp_allow_plaintext_auth,
        source_address=record.source_address,
        timeouts=_TIMEOUTS,
    )


def _fields(finding: Finding) -> dict[str, Any]:
    return {"check": finding.check, "result": finding.result, "what": finding.what, "cure": finding.cure}


ROUTES = (Route("GET", "/v1/doctor/google", examine_google, "Look what is wrong with Google", DoctorGoogle, Findings),)
