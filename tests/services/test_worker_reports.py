"""Reports of worker processes over real servers: DynamoDB as their table, SQS's depth, Kafka's lag."""

import json
import signal

import pytest

from fan_identity.io import worker_reports
from fan_identity.io.backends import Backends, open_operations
from fan_identity.io.clock import now_ms
from fan_identity.io.kafka_lag import kafka_lag
from fan_identity.io.settings import load_settings
from fan_identity.io.telemetry.totals import totals_of
from fan_identity.io.worker_reports import KEPT_MS, TTL_ATTRIBUTE, WorkerReport, item_of, live_workers, read_reports

from .conftest import activity


@pytest.fixture(autouse=True)
def _stopped():
    yield
    worker_reports.stop()


def test_a_process_reports_to_dynamodb_with_its_queues_depth(server, system, tmp_path, until):
    server("dynamodb")
    server("elasticmq")
    queue, table = system.queue(), system.table()
    for number in range(3):
        system.send(queue, b"{}", group=f"g{number}")
    settings = load_settings(queue=queue, table=table, cache=f"sqlite:///{tmp_path}/cache.db", dead_letters=table)
    backends = Backends.of(settings, "scoreUsers").reporting(settings, "FlinkRunner")
    totals_of("scoreUsers").count("scored", 3)
    worker_reports.start(backends)
    operations = open_operations(table)
    (report,) = until(lambda: live_workers(operations), "the first report")
    name = queue.removeprefix("sqs://").partition("?")[0]
    assert (report.queue, report.runner) == (f"sqs:{name}", "FlinkRunner")
    assert report.depth == 3
    assert report.counts["scored"] >= 3
    (item,) = system.items(table, report.process)
    assert item[TTL_ATTRIBUTE] == (report.updated_at + KEPT_MS) // 1_000
    worker_reports.stop()
    assert [one.ended for one in read_reports(operations)] == [True]


def test_old_reports_are_deleted_by_who_reads_them(server, system):
    server("dynamodb")
    operations = open_operations(system.table())
    old = WorkerReport("scoreUsers", "old", 1, now_ms() - KEPT_MS - 1)
    new = WorkerReport("scoreUsers", "new", 1, now_ms(), counts={"scored": 2**40})
    operations.put_if_newer([item_of(old), item_of(new)])
    assert read_reports(operations) == [new]
    assert operations.get("REPORT#scoreUsers", "old") is None


def test_the_lag_of_a_topic_is_what_its_group_has_not_committed(server, system, make_store, cli, until):
    server("kafka")
    topic, store = system.topic(2), make_store()
    assert kafka_lag(topic, "enqueueFromStream", 10) == {0: 0, 1: 0}
    system.produce(topic, [(f"k{number}", activity(number, f"fan-{number}", now_ms())) for number in range(50)])
    assert sum(kafka_lag(topic, "enqueueFromStream", 10).values()) == 50
    assert sum(kafka_lag(f"{topic}?start=latest", "enqueueFromStream", 10).values()) == 0
    running = cli.start("run", "enqueueFromStream", "--source", topic, *store.flag, "--streaming", "--json")
    operations = open_operations(store.address)
    running.until(lambda: store.waiting() == 50, "all are queued")
    (report,) = running.until(lambda: [one for one in live_workers(operations) if one.lag == 0], "a report of no lag")
    assert report.source == f"kafka:{topic.rpartition('/')[2]}"
    assert report.counts["enqueued"] == 50
    running.signal(signal.SIGTERM)
    assert json.loads(running.wait().out)["enqueued"] == 50
    (last,) = read_reports(operations, ["enqueueFromStream"])
    assert last.ended
    assert sum(kafka_lag(topic, "enqueueFromStream", 10).values()) == 0


def test_a_broker_that_is_away_says_nothing_of_lag(tmp_path):
    settings = load_settings(store=f"sqlite:///{tmp_path}/fans.db", source="kafka://127.0.0.1:1/nowhere")
    backends = Backends.of(settings, "enqueueFromStream", settings.source)
    assert worker_reports._lag(backends) is None
