from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from relayd.metrics import Meter, forget_worker, prepare_directory
from relayd.metrics.files import workers_families
from relayd.metrics.labels import OTHER, BoundedNames
from relayd.metrics.meter import MAX_UPSTREAMS, MAX_WORDS
from relayd.metrics.page import summed
from relayd.rules.outcome import Stage
from relayd.rules.relay_events import (
    Accepted,
    AttemptEnded,
    AttemptStarted,
    BatchCommitted,
    ClaimsReturned,
    Rejected,
    StoreLost,
)
from relayd.rules.session_events import Authenticated, Ending, SessionClosed, SessionOpened
from tests.sample_events import KINDS, sample, samples


@pytest.fixture
def meter() -> Meter:
    return Meter(CollectorRegistry())


def value(meter: Meter, name: str, **labels: str) -> float | None:
    return meter.registry.get_sample_value(name, labels)


def series(families: list[Metric]) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {(each.name, tuple(sorted(each.labels.items()))) for family in families for each in family.samples}


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_counts(meter: Meter, kind: type) -> None:
    before = summed(meter.registry.collect())
    meter.record(sample(kind))
    after = summed(meter.registry.collect())
    assert [each.samples for each in before] != [each.samples for each in after]


def test_names_follow_the_conventions(meter: Meter) -> None:
    for event in samples():
        meter.record(event)
    for family in meter.registry.collect():
        assert family.name.startswith("relayd_")
        assert family.documentation[0].isupper() and not family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.rsplit("_", 1)[-1] in {"seconds", "bytes", "items"}


def test_an_accepted_message_counts_once_and_its_recipients_each(meter: Meter) -> None:
    meter.record(sample(Accepted, recipients=7, size_octets=5000))
    assert value(meter, "relayd_messages_accepted_total") == 1
    assert value(meter, "relayd_recipients_accepted_total") == 7
    assert value(meter, "relayd_message_size_bytes_sum") == 5000
    assert value(meter, "relayd_message_size_bytes_bucket", le="4096.0") == 0
    assert value(meter, "relayd_message_size_bytes_bucket", le="16384.0") == 1


def test_open_sessions_and_attempts_in_flight_go_up_and_down(meter: Meter) -> None:
    meter.record(sample(SessionOpened))
    meter.record(sample(SessionOpened))
    meter.record(sample(SessionClosed, reason=Ending.IDLE))
    assert value(meter, "relayd_sessions_open") == 1
    assert value(meter, "relayd_sessions_closed_total", reason="idle") == 1
    meter.record(sample(AttemptStarted))
    meter.record(sample(AttemptEnded))
    assert value(meter, "relayd_attempts_in_flight") == 0


def test_a_claim_settled_untried_is_no_attempt(meter: Meter) -> None:
    meter.record(sample(ClaimsReturned, count=2))
    meter.record(sample(AttemptEnded, upstream="", outcome="postponed", stage=Stage.LOCAL))
    assert value(meter, "relayd_claims_returned_total") == 2
    assert value(meter, "relayd_attempts_in_flight") == 0
    assert all(not each.samples for each in meter.registry.collect() if each.name == "relayd_attempts")


def test_known_labels_start_at_zero(meter: Meter) -> None:
    assert value(meter, "relayd_sessions_closed_total", reason="too_large") == 0
    assert value(meter, "relayd_sessions_refused_total", cap="connections") == 0


def test_labels_are_bounded_whatever_words_come(meter: Meter) -> None:
    for number in range(1000):
        word = f"word{number}"
        for kind, label in (
            (Rejected, "reason"),
            (StoreLost, "step"),
            (BatchCommitted, "step"),
            (Authenticated, "mechanism"),
        ):
            meter.record(sample(kind, **{label: word}))
        meter.record(sample(AttemptEnded, upstream=word, outcome="sent", stage=Stage.DOT))
    assert value(meter, "relayd_attempts_total", upstream="word99", outcome="sent", stage="dot") == 1
    assert value(meter, "relayd_attempts_total", upstream=OTHER, outcome="sent", stage="dot") == 1000 - MAX_UPSTREAMS
    assert value(meter, "relayd_messages_rejected_total", reason=OTHER) == 1000 - MAX_WORDS
    assert len(series(list(meter.registry.collect()))) < 4000


def test_no_text_of_a_message_or_peer_becomes_a_label(meter: Meter) -> None:
    labels = {"upstream", "outcome", "reason", "step", "mechanism", "stage", "limit", "noun"}
    for kind in KINDS:
        known = {name: "known" for name in labels & set(kind.__dataclass_fields__) if name not in ("reason", "stage")}
        if kind is Rejected:
            known["reason"] = "known"
        meter.record(sample(kind, text="canary", **known))
    assert "canary" not in repr(series(list(meter.registry.collect())))


def test_bounded_names_keep_the_first() -> None:
    names = BoundedNames(2)
    assert [names.label(each) for each in ("a", "b", "c", "a", "d", "b")] == ["a", "b", OTHER, "a", OTHER, "b"]


def test_sums_add_samples_of_the_same_labels() -> None:
    meters = [Meter(CollectorRegistry()) for _ in range(2)]
    for meter, count in zip(meters, (1, 3), strict=True):
        for _ in range(count):
            meter.record(sample(BatchCommitted, step="claim", items=20))
    families = {each.name: each for each in summed(each for meter in meters for each in meter.registry.collect())}
    counts = [each.value for each in families["relayd_batch_items"].samples if each.name.endswith("_count")]
    assert counts == [4]
    assert not any(each.name.endswith("_created") for family in families.values() for each in family.samples)


class TestFiles:
    def write(self, path: Path, kind: str, pid: int, amount: float) -> None:
        values = MmapedDict(str(path / f"{kind}_{pid}.db"))
        name = "relayd_sessions_open" if kind.startswith("gauge") else "relayd_x_total"
        values.write_value(mmap_key(name.removesuffix("_total"), name, [], [], "About"), amount, 0.0)
        values.close()

    def total(self, path: Path, name: str) -> float | None:
        found = [each.value for family in workers_families(path) for each in family.samples if each.name == name]
        return found[0] if found else None

    def test_preparing_clears_what_an_earlier_run_left(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics"
        prepare_directory(path)
        self.write(path, "counter", 7, 1)
        (path / "else.txt").touch()
        prepare_directory(path)
        assert [each.name for each in path.iterdir()] == ["else.txt"]
        assert path.stat().st_mode & 0o777 == 0o700

    def test_counts_of_the_dead_stay_and_their_gauges_go(self, tmp_path: Path) -> None:
        for pid in (7, 8):
            self.write(tmp_path, "counter", pid, 10)
            self.write(tmp_path, "gauge_livesum", pid, 4)
        forget_worker(tmp_path, 7)
        assert self.total(tmp_path, "relayd_x_total") == 20
        assert self.total(tmp_path, "relayd_sessions_open") == 4

    def test_a_worker_that_dies_again_and_again_leaves_one_file(self, tmp_path: Path) -> None:
        for pid in range(1, 50):
            self.write(tmp_path, "counter", pid, 2)
            forget_worker(tmp_path, pid)
        assert [each.name for each in tmp_path.iterdir()] == ["counter_0.db"]
        assert self.total(tmp_path, "relayd_x_total") == 98

    @pytest.mark.parametrize("damage", [b"", b"\0", b"\xff\xff\0\0" + b"\xff" * 100], ids=["empty", "short", "torn"])
    def test_a_file_that_a_dying_worker_has_torn_harms_nobody(self, tmp_path: Path, damage: bytes) -> None:
        self.write(tmp_path, "counter", 7, 10)
        forget_worker(tmp_path, 7)
        (tmp_path / "counter_8.db").write_bytes(damage)
        forget_worker(tmp_path, 8)
        assert self.total(tmp_path, "relayd_x_total") == 10

    def test_a_worker_that_is_just_starting_is_no_error(self, tmp_path: Path) -> None:
        (tmp_path / "counter_8.db").touch()
        assert list(workers_families(tmp_path)) == []

    def test_forgetting_a_worker_that_left_nothing(self, tmp_path: Path) -> None:
        forget_worker(tmp_path, 99)
        assert list(tmp_path.iterdir()) == []
