"""The page that Prometheus scrapes: workers' sums, the supervisor's own, and gauges read from the database."""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from relayd.errors import StoreUnavailable
from relayd.metrics.files import workers_families
from relayd.metrics.meter import Meter
from relayd.metrics.node import NodeState, database_families
from relayd.store import gauges
from relayd.store.gauges import Gauges
from relayd.store.pool import Database
from relayd.store.timed_cache import TimedCache

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEPT_SECONDS = 5.0
# Prometheus waits 10 s for a page.
LOOK_SECONDS = 4.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _View:
    is_up: bool
    is_durable: bool | None
    gauges: Gauges | None


class MetricsPage:
    """Rendered in the supervisor. Always answers: without the database it says so and shows the rest."""

    def __init__(self, multiproc_dir: Path, database: Database, *, node: NodeState, meter: Meter) -> None:
        """`meter` counts what happens in the supervisor itself; it is added to the workers' sums."""
        self._multiproc_dir = multiproc_dir
        self._database = database
        self._node = node
        self._meter = meter
        self._views: TimedCache[None, _View] = TimedCache(self._look, seconds=KEPT_SECONDS)

    async def render(self) -> bytes:
        """The text format 0.0.4. What it says of the database may be KEPT_SECONDS old."""
        view = await self._views.get(None)
        counted = chain(workers_families(self._multiproc_dir), self._meter.registry.collect())
        families = [
            *summed(counted),
            *self._node.families(),
            *database_families(view.is_up, view.is_durable, view.gauges),
        ]
        page = CollectorRegistry()
        page.register(_Families(families))
        return generate_latest(page)

    async def _look(self, _: None) -> _View:
        is_up, is_durable = False, None
        try:
            async with asyncio.timeout(LOOK_SECONDS), self._database.connection() as connection:
                is_durable = not await self._database.warnings(connection)
                is_up = True
                return _View(is_up, is_durable, await gauges.read(connection))
        except (StoreUnavailable, TimeoutError):
            return _View(is_up, is_durable, None)
        except Exception:
            log.exception("cannot read the gauges")
            return _View(is_up, is_durable, None)


def summed(families: Iterable[Metric]) -> list[Metric]:
    """Families of one name made one, samples of the same labels added up; in order of name."""
    about: dict[str, Metric] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in families:
        about.setdefault(family.name, family)
        values = sums.setdefault(family.name, {})
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                key = (sample.name, tuple(sorted(sample.labels.items())))
                values[key] = values.get(key, 0.0) + sample.value
    return [_family(about[name], sums[name]) for name in sorted(about)]


def _family(like: Metric, values: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> Metric:
    family = Metric(like.name, like.documentation, like.type)
    family.samples = [Sample(name, dict(labels), value) for (name, labels), value in values.items()]
    return family


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)
