"""What a process says of itself: complete, without names of servers, once a process, and at no cost to the worker."""

import logging
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.io import worker_reports
from fan_identity.io.backends import Backends, open_operations
from fan_identity.io.clock import now_ms
from fan_identity.io.settings import load_settings
from fan_identity.io.telemetry.totals import totals_of
from fan_identity.io.worker_reports import (
    KEPT_MS,
    SILENT_MS,
    TTL_ATTRIBUTE,
    WorkerReport,
    item_of,
    live_workers,
    read_reports,
    shown_address,
)

NAMES = st.text(st.characters(codec="ascii", categories=("L", "Nd")), min_size=1, max_size=20)


@pytest.fixture
def backends(tmp_path):
    settings = load_settings(store=f"sqlite:///{tmp_path}/fans.db")
    yield Backends.of(settings, "scoreUsers").reporting(settings, "DirectRunner")
    worker_reports.stop()


@pytest.fixture
def table(backends):
    return open_operations(backends.operations)


def report(**fields):
    return WorkerReport(**({"worker": "scoreUsers", "process": "p", "started_at": 1, "updated_at": now_ms()} | fields))


def test_a_process_reports_once_however_often_it_is_started_and_says_when_it_ends(backends, table, until):
    totals_of("scoreUsers").counts.clear()
    totals_of("scoreUsers").count("scored", 7)
    for _ in range(3):
        worker_reports.start(backends)
    until(lambda: live_workers(table), "the first report")
    totals_of("scoreUsers").count("scored", 5)
    worker_reports.stop()
    (last,) = read_reports(table)
    assert last.ended
    assert last.counts["scored"] == 12
    assert (last.runner, last.queue, last.source) == ("DirectRunner", "accountActivityQueue", None)
    assert live_workers(table) == []
    (item,) = table.query("REPORT#scoreUsers")
    assert item[TTL_ATTRIBUTE] == (last.updated_at + KEPT_MS) // 1_000


def test_a_forked_process_is_one_of_its_own(backends, table, until):
    worker_reports.start(backends)
    until(lambda: live_workers(table), "the parent's report")
    child = os.fork()
    if not child:
        code = 1
        try:
            worker_reports.start(backends)
            worker_reports.stop(10)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    reports = read_reports(table)
    assert len({one.process for one in reports}) == 2
    assert [one.ended for one in reports].count(True) == 1


def test_nothing_is_written_where_no_place_is_named(backends, table):
    worker_reports.start(replace(backends, operations=None))
    worker_reports.stop()
    assert read_reports(table) == []


def test_a_table_out_of_reach_is_told_once_and_costs_nothing(backends, tmp_path, caplog, until):
    place = f"sqlite:///{tmp_path}/no-such-folder/operations.db"
    with caplog.at_level(logging.WARNING, logger="fan_identity.io.worker_reports"):
        for worker in ("scoreUsers", "stagingScoreUsers"):
            worker_reports.start(replace(backends, worker=worker, operations=place))
        until(lambda: caplog.records, "a warning")
        worker_reports.stop(10)
    assert len(caplog.records) == 1  # though each of the two was told, at the beginning and at the end
    assert "works on" in caplog.text


def test_a_process_is_alive_until_it_ends_or_falls_silent(table):
    now = now_ms()
    for number, fields in enumerate(
        ({}, {"ended": True}, {"updated_at": now - SILENT_MS}, {"updated_at": now - KEPT_MS - 1})
    ):
        table.put_if_newer([item_of(report(process=f"p{number}", **fields))])
    assert [one.process for one in read_reports(table)] == ["p0", "p1", "p2"]
    assert [one.process for one in live_workers(table)] == ["p0"]
    assert [item["SK"] for item in table.query("REPORT#scoreUsers")] == ["p0", "p1", "p2"]  # the old one is deleted


def test_an_older_report_replaces_none(table):
    newer, older = report(counts={"read": 2}), report(updated_at=now_ms() - 100, counts={"read": 1})
    assert table.put_if_newer([item_of(newer), item_of(older)]) == [True, False]
    assert read_reports(table) == [newer]


def test_an_item_of_a_later_program_is_passed_over(table):
    table.put({"PK": "REPORT#scoreUsers", "SK": "later", "updatedAt": "soon"})
    table.put_if_newer([item_of(report())])
    assert len(read_reports(table)) == 1


@given(st.sampled_from(("kafka", "sqs", "kinesis", "pubsub")), NAMES, NAMES, NAMES)
def test_an_address_is_shown_without_server_and_options(scheme, host, name, option):
    assert shown_address(f"{scheme}://{host}:9092/{name}?endpoint=http://{option}:1") == f"{scheme}:{name}"


def test_a_run_reports_its_books(make_store, cli, sale, tmp_path):
    store = make_store()
    events = tmp_path / "sale.jsonl"
    events.write_bytes(b"\n".join(sale(4, 1, 7)))
    assert cli("run", "enqueueFromStream", "--source", f"file://{events}", *store.flag).code in (0, 1)
    done = cli("run", "scoreUsers", *store.flag, "--json")
    assert done.code == 0, done.err
    enqueued, last = read_reports(open_operations(store.address), ["enqueueFromStream", "scoreUsers"])
    assert (enqueued.source, enqueued.ended) == ("file:sale.jsonl", True)
    assert enqueued.counts["enqueued"] == last.counts["received"]
    assert last.ended
    assert last.counts["scored"] == done.json["scored"] > 0
    assert last.batches > 0
    assert b"REPORT" not in store.dump()
