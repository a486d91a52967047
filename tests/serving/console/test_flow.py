"""The sampler over a real store: rates of real reports, depths of real queues, and what it does where a part hangs."""

import asyncio
import threading

import pytest

from fan_identity.domain.flow import QueueState
from fan_identity.domain.liveness import Outage
from fan_identity.io.backends import open_operations, open_queue
from fan_identity.io.clock import now_ms
from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.outages import OutageBook
from fan_identity.io.ports import QueueEntry
from fan_identity.io.queue_state import queue_state
from fan_identity.io.settings import load_settings
from fan_identity.io.sqlite.queue import DEDUPLICATION_WINDOW_MS, SqliteQueue
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.worker_reports import WorkerReport, item_of
from fan_identity.serving.console.flow import _DEADLINE_SECONDS, FlowSampler


def report(at, worker="scoreUsers", process="p", **fields):
    return WorkerReport(worker, process, at - 60_000, at, **fields)


def test_reports_and_queues_of_a_store_become_columns(tmp_path):
    settings = load_settings(store=f"sqlite:///{tmp_path}/fans.db")
    table = open_operations(settings.store)
    queue = open_queue(settings.store, "queue", "accountActivityQueue", 60_000)
    queue.send([QueueEntry(f"fan-{number}", str(number), b"{}") for number in range(7)])
    now = now_ms()

    async def sampled():
        sampler = FlowSampler.of(settings)
        table.put_if_newer([item_of(report(now - 5_000, counts={"scored": 100, "dead_lettered.malformed": 1}))])
        await sampler.sample()
        table.put_if_newer([item_of(report(now, counts={"scored": 150, "dead_lettered.malformed": 11}))])
        await sampler.sample()
        return sampler.answer(0), sampler.answer(now_ms())

    told, nothing_new = asyncio.run(sampled())
    assert told["problems"] == []
    assert told["workers"]["scoreUsers"]["scored"] == [None, 10.0]
    assert told["workers"]["scoreUsers"]["deadLettered"] == [None, 2.0]
    assert told["queues"]["accountActivityQueue"]["depth"] == [7, 7]
    assert all(0 <= age < 60_000 for age in told["queues"]["accountActivityQueue"]["oldestMs"])
    (process,) = told["processes"]
    assert (process["worker"], process["process"], process["alive"]) == ("scoreUsers", "p", True)
    assert nothing_new["times"] == []


def test_outages_that_go_on_are_told_without_what_was_wrong(tmp_path):
    settings = load_settings(store=f"sqlite:///{tmp_path}/fans.db")
    book = OutageBook(lambda: open_operations(settings.store), tmp_path / "local.db", 10, print)
    book.read()
    assert book.write(Outage("model", "https://model", revision=1, down=True, began_at=5, problem="secret of host-17"))
    assert book.write(Outage("cache", "redis://cache", revision=1, down=False, began_at=5, ended_at=9))

    async def sampled():
        sampler = FlowSampler.of(settings)
        await sampler.sample()
        return sampler.answer(0)["outages"]

    assert asyncio.run(sampled()) == [{"part": "model", "since": 5}]


def test_what_does_not_answer_is_a_gap_and_is_told():
    def away():
        raise BackendUnavailableError("table fans at host-17 is out of reach")

    async def sampled():
        sampler = FlowSampler(away, {"q": away, "other": lambda: QueueState(3, 40)})
        await sampler.sample()
        return sampler.answer(0)

    told = asyncio.run(sampled())
    assert told["workers"] == {}
    assert told["queues"]["q"] == {"depth": [None], "oldestMs": [None]}
    assert told["queues"]["other"] == {"depth": [3], "oldestMs": [40]}
    assert told["problems"] == ["the table of workers' reports does not answer", "queue q does not answer"]


def test_a_part_that_hangs_holds_nobody_and_is_not_asked_twice_at_once(monkeypatch):
    monkeypatch.setattr("fan_identity.serving.console.flow._DEADLINE_SECONDS", 0.05)
    assert _DEADLINE_SECONDS < 5
    released, asked = threading.Event(), []

    def hangs():
        asked.append(None)
        released.wait(60)
        return QueueState(9)

    async def sampled():
        sampler = FlowSampler(lambda: [], {"q": hangs})
        await sampler.sample()
        await sampler.sample()
        hung = len(asked)
        released.set()
        while sampler.answer(0)["queues"]["q"]["depth"][-1] is None:
            await sampler.sample()
        return hung, sampler.answer(0)["problems"]

    assert asyncio.run(sampled()) == (1, [])


def test_the_age_of_a_queue_that_does_not_tell_is_its_readers(tmp_path):
    now = now_ms()
    reports = [
        report(now, process="a", queue="sqs:q.fifo", depth=5, age_ms=900, last_batch_at=now),
        report(now, process="b", queue="sqs:q.fifo", depth=5, age_ms=4_000, last_batch_at=now - 1_000),
        report(now, process="c", queue="sqs:q.fifo", depth=5, age_ms=99_000, last_batch_at=now - 60_000),
    ]

    async def sampled(queues):
        sampler = FlowSampler(lambda: reports, queues)
        await sampler.sample()
        return sampler.answer(0)["queues"]["sqs:q.fifo"]

    assert asyncio.run(sampled({})) == {"depth": [5], "oldestMs": [4_000]}
    assert asyncio.run(sampled({"sqs:q.fifo": lambda: QueueState(8)})) == {"depth": [8], "oldestMs": [4_000]}
    assert asyncio.run(sampled({"sqs:q.fifo": lambda: QueueState(0)})) == {"depth": [0], "oldestMs": [0]}


def test_lag_is_the_logs_not_the_sum_over_processes():
    now = now_ms()
    reports = [
        report(now - 10, "enqueueFromStream", "a", source="kafka:t", lag=50),
        report(now, "enqueueFromStream", "b", source="kafka:t", lag=40),
        report(now, "enqueueFromStream", "c", source="kafka:t", lag=7, ended=True),
    ]

    async def sampled():
        sampler = FlowSampler(lambda: reports, {})
        await sampler.sample()
        return sampler.answer(0)["lag"]

    assert asyncio.run(sampled()) == {"enqueueFromStream": {"source": "kafka:t", "records": [40]}}


def test_it_samples_in_the_background_until_closed():
    async def sampled():
        sampler = FlowSampler(lambda: [], {})
        sampler.start()
        while not sampler.answer(0)["times"]:
            await asyncio.sleep(0)
        await sampler.close()
        return len(sampler.answer(0)["times"])

    assert asyncio.run(sampled()) == 1


@pytest.mark.parametrize(("waited", "told"), [(0, 0), (1_234, 1_234), (DEDUPLICATION_WINDOW_MS * 3, 300_000)])
def test_the_oldest_message_of_a_store(tmp_path, waited, told):
    clock = [1_000_000_000_000]
    queue = SqliteQueue(SqliteStore(tmp_path / "q.db"), "q", clock_ms=lambda: clock[0])
    assert queue_state(queue) == QueueState(0, 0)
    queue.send([QueueEntry("a", "1", b"x")])
    clock[0] += waited
    queue.send([QueueEntry("b", "2", b"y")])
    assert queue_state(queue) == QueueState(2, told)
    queue.delete([message.receipt for message in queue.receive(1)])
    assert queue_state(queue) == QueueState(1, 0)
