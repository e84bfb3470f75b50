"""From an upstream's row to what tries it, for `relayd upstream test`."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from relayd.daemon import smtp_relay
from relayd.seal import Seal
from relayd.store.upstreams import UpstreamRecord
from relayd.upstream.capture_probe import CaptureProbe
from relayd.upstream.http_probe import HttpProbe, Question
from relayd.upstream.probe import SmtpProbe
from relayd.upstream.steps import Probe

_GMAIL = "https://gmail.googleapis.com"
_SENDGRID = "https://api.sendgrid.com"


class Probes:
    """Makes the probe of each kind of upstream."""

    def __init__(self, seal: Seal, *, hostname: str) -> None:
        self._seal = seal
        self._hostname = hostname

    def of(self, record: UpstreamRecord) -> Probe:
        """Raises SealError for a secret that does not open, RelaydError for what cannot be tried."""
        match record.provider_type, record.mode:
            case "capture", _:
                assert record.capture_directory
                return CaptureProbe(Path(record.capture_directory), hostname=self._hostname, now=_now)
            case "google_workspace", "gmail_api":
                return HttpProbe(record.api_url or _GMAIL, ca_file=record.smtp_ca_file, question=None)
            case "sendgrid", "api":
                # Which scopes the key has: any key may ask.
                question = Question("/v3/scopes", self._bearer(record))
                return HttpProbe(record.api_url or _SENDGRID, ca_file=record.smtp_ca_file, question=question)
            case "sendgrid", _:
                settings = smtp_relay.settings(record, self._seal, self._hostname, 1)
                return SmtpProbe(replace(settings, password=self._api_key(record)), now=_now)
            case _:
                return SmtpProbe(smtp_relay.settings(record, self._seal, self._hostname, 1), now=_now)

    def _bearer(self, record: UpstreamRecord) -> "_Bearer":
        return _Bearer(self._api_key(record) or "")

    def _api_key(self, record: UpstreamRecord) -> str | None:
        key = smtp_relay.opened(record, self._seal, "api_key", record.api_key_sealed)
        return None if key is None else key.decode()


class _Bearer:
    """The header that carries an API key."""

    def __init__(self, key: str) -> None:
        self._key = key

    async def __call__(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._key}"}


def _now() -> datetime:
    return datetime.now(UTC)
