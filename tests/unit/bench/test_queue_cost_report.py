"""The page says what the figures say."""

from bench.queue_cost import report

STEPS = {"claim": 4.0, "start": 2.0, "settle": 3.0}


def trial(backlog, number, rate):
    return {
        "backlog": backlog,
        "mailboxes": 1,
        "round": number,
        "entries_per_second": rate,
        "backend_cpu_seconds_per_1000": 400 / rate,
        "p50_ms": STEPS,
        "p99_ms": STEPS,
        "per_entry": {"wal_octets": 3000.0, "wal_full_pages": 0.1, "blocks_read": 0.0, "blocks_touched": 150.0},
    }


def results(**more):
    return {
        "machine": {"cpu": "Some CPU", "cores": 2, "memory_gib": 4, "kernel": "6.1", "python": "3.11"},
        "postgres": {"version": "18.1", "fsync": "on"},
        "options": {"live": 1000, "live_mailboxes": 100, "batch": 20, "rounds": 3, "note": "A quiet day."},
        "trials": [trial(0, 1, 1000), trial(0, 2, 500), trial(10_000, 1, 900), trial(10_000, 2, 500)],
        "plans": [],
        **more,
    }


def test_a_backlog_is_compared_with_the_empty_queue_of_its_round():
    line = next(line for line in report.page(results()).splitlines() if line.startswith("| 10,000 |"))
    assert "700 (500–900)" in line
    assert "0.95 (0.90–1.00)" in line


def test_what_was_not_measured_has_no_place_on_the_page():
    assert "Growth" not in report.page(results())
    assert "What a claim reads" not in report.page(results())
    assert "## Behind" not in report.page(results(trials=[]))


def test_what_was_special_about_the_run_is_told():
    assert "A quiet day." in report.page(results())


def test_a_plan_names_its_largest_scan():
    scans = [{"on": "small", "rows": 1, "buffers": 2}, {"on": "email_queue_due", "rows": 400, "buffers": 440}]
    plans = [{"backlog": 0, "mailboxes": 1, "step": "claim", "rows_read": 401, "buffers": 1000, "scans": scans}]
    assert "email_queue_due: 400 rows, 440 buffers" in report.page(results(plans=plans))
