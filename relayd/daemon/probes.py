"""From an upstream's row to what tries it, for `relayd upstream test`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from relayd.daemon import google, smtp_relay
from relayd.daemon.tokens import token_source
from relayd.errors import RelaydError
from relayd.intake.signer import Signer
from relayd.mail import headers
from relayd.mail.address import Address
from relayd.rules.grant_events import GrantDied
from relayd.rules.known_hosts import signing_for
from relayd.seal import Seal, SealError
from relayd.store import directory
from relayd.store.pool import Database
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.capture_probe import CaptureProbe
from relayd.upstream.google import Identify
from relayd.upstream.http_probe import HttpProbe, Question
from relayd.upstream.probe import Sign, SmtpProbe, trial_transmission
from relayd.upstream.settings import SmarthostSettings, Timeouts
from relayd.upstream.steps import Probe, Progress, StepFailed, Trial
from relayd.upstream.tokens import TokenSource
from relayd.upstream.verdict import Unfit

_GMAIL = "https://gmail.googleapis.com"
_SENDGRID = "https://api.sendgrid.com"


class Probes:
    """Makes the probe of each kind of upstream."""

    def __init__(
        self,
        database: Database,
        seal: Seal,
        *,
        hostname: str,
        emit: Callable[[GrantDied], None],
        timeouts: Timeouts | None = None,
    ) -> None:
        """`timeouts` are those of deliveries."""
        self._database = database
        self._seal = seal
        self._hostname = hostname
        self._emit = emit
        self._signer = Signer(database, seal)
        self._timeouts = timeouts or Timeouts()

    def of(self, record: UpstreamRecord) -> Probe:
        """Raises SealError for a secret that does not open, RelaydError for what cannot be tried."""
        sign = self._sign(record)
        match record.provider_type, record.mode:
            case "capture", _:
                assert record.capture_directory
                return CaptureProbe(Path(record.capture_directory), hostname=self._hostname, now=_now, sign=sign)
            case "google_workspace", "gmail_api":
                return _GmailProbe(record, self._tokens(record))
            case "sendgrid", "api":
                # Which scopes the key has: any key may ask.
                question = Question("/v3/scopes", self._bearer(record))
                return HttpProbe(record.api_url or _SENDGRID, ca_file=record.smtp_ca_file, question=question)
            case "sendgrid", _:
                settings = smtp_relay.settings(record, self._seal, self._hostname, 1, timeouts=self._timeouts)
                return SmtpProbe(replace(settings, password=self._api_key(record)), now=_now, sign=sign)
            case _:
                settings = smtp_relay.settings(record, self._seal, self._hostname, 1, timeouts=self._timeouts)
                settings = google.with_tokens(record, settings, self._tokens(record))
                return _AsSender(settings, google.identities(record, settings), sign)

    def _sign(self, record: UpstreamRecord) -> Sign:
        """As mail for this upstream is signed, where the sender's domain is one of relayd's."""
        signing = signing_for(record.provider_type, record.dialect, record.smtp_host, record.dkim)

        async def sign(content: bytes, sender: Address) -> tuple[bytes, str]:
            name = sender.ascii_domain
            async with self._database.connection() as connection:
                domain = await directory.find_domain(connection, name)
            if domain is None:
                return content, f"not signed: relayd has no domain {name}"
            try:
                signed = await self._signer.sign_for(signing, domain, content, headers.scan(content), _now())
            except SealError as error:
                raise RelaydError(str(error)) from None
            if signed == content:
                return content, "not signed: the upstream accepts no DKIM signature (--dkim none)"
            return signed, f"DKIM signatures of {name}: {len(headers.scan(signed).all(b'DKIM-Signature'))}"

        return sign

    def _tokens(self, record: UpstreamRecord) -> TokenSource:
        return token_source(record, self._seal, self._database, self._emit, time.monotonic)

    def _bearer(self, record: UpstreamRecord) -> "_Bearer":
        return _Bearer(self._api_key(record) or "")

    def _api_key(self, record: UpstreamRecord) -> str | None:
        key = smtp_relay.opened(record, self._seal, "api_key", record.api_key_sealed)
        return None if key is None else key.decode()


class _AsSender:
    """Tries a server that wants to know whose mail it is."""

    def __init__(self, settings: SmarthostSettings, identify: Identify, sign: Sign) -> None:
        self._settings = settings
        self._identify = identify
        self._sign = sign

    async def run(self, trial: Trial, progress: Progress) -> None:
        try:
            identity = self._identify(trial_transmission(trial, self._settings.ehlo_name, _now()))
        except Unfit as error:
            async with progress.step("auth"):
                raise StepFailed(str(error), "give --from ADDRESS, a mailbox with an ASCII address") from None
        else:
            await SmtpProbe(identity.applied(self._settings), now=_now, sign=self._sign).run(trial, progress)


class _GmailProbe:
    """Tries Gmail's API as the account that sends."""

    def __init__(self, record: UpstreamRecord, tokens: TokenSource) -> None:
        self._record = record
        self._tokens = tokens

    async def run(self, trial: Trial, progress: Progress) -> None:
        subject = trial.reverse_path.plain if google.speaks_for_all(self._record) else None

        async def headers() -> Mapping[str, str]:
            return {"Authorization": f"Bearer {await self._tokens.token(subject)}"}

        question = Question("/gmail/v1/users/me/profile", headers)
        probe = HttpProbe(self._record.api_url or _GMAIL, ca_file=self._record.smtp_ca_file, question=question)
        await probe.run(trial, progress)


class _Bearer:
    """The header that carries an API key."""

    def __init__(self, key: str) -> None:
        self._key = key

    async def __call__(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._key}"}


def _now() -> datetime:
    return datetime.now(UTC)
