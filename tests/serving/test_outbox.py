"""The outbox over SQLite and a bus in memory: stored first, published afterwards, in order, at least once."""

import asyncio
import json
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fan_identity.domain.records import Failure
from fan_identity.io.dynamodb.values import UnsupportedItemError
from fan_identity.io.errors import BackendUnavailableError, UnavailableError, UsageError
from fan_identity.io.sqlite.async_table import SqliteAsyncTable
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.serving import outbox as module
from fan_identity.serving.outbox import ID_FIELD, REFUSED_PK, SOURCE, TableOutbox

PATIENCE = 60


class Bus:
    """Takes events as EventBridge does, or not, as a test says."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.calls = 0
        self.verdict: Callable[[dict[str, Any]], Failure | None] = lambda detail: None
        self.error: Exception | None = None
        self._lock = threading.Lock()

    def put_events(self, entries: Sequence[tuple[str, str, bytes]]) -> list[Failure | None]:
        with self._lock:
            self.calls += 1
            if self.error is not None:
                raise self.error
            outcomes: list[Failure | None] = []
            for source, kind, body in entries:
                assert (source, kind) == (SOURCE, "user.upsert")
                detail = json.loads(body)
                outcomes.append(self.verdict(detail))
                if outcomes[-1] is None:
                    self.taken.append(detail)
            return outcomes


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.05)


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def run(tmp_path, bus):
    """Runs with an outbox on one file; each call is a new process's."""

    def run(use: Any, *, publishing: Any = bus, start: bool = True, **options: Any) -> Any:
        async def running() -> Any:
            table = SqliteAsyncTable(SqliteStore(tmp_path / "outbox.db"), "outbox", "outbox", PATIENCE, durable=True)
            outbox = TableOutbox(table, publishing, **options)
            try:
                if start:
                    outbox.start()
                return await use(outbox, table)
            finally:
                await outbox.close()
                await table.close()

        return asyncio.run(running())

    return run


def waiting(table: Any) -> Any:
    return table.query("OUTBOX#0")


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


async def until_empty(table: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while await waiting(table):
            await asyncio.sleep(0.005)


def detail(user: str, number: int) -> dict[str, Any]:
    return {"globalUserId": user, "number": number, "text": "é\u2028 5.0", "share": 5.0, "eventId": "the sale's event"}


def test_an_event_is_stored_before_it_is_told_and_published_with_its_id(run, bus):
    async def use(outbox, table):
        name = await outbox.add("user.upsert", detail("fan", 1))
        await until(lambda: bus.taken)
        await until_empty(table)
        return name

    name = run(use)
    assert bus.taken == [{**detail("fan", 1), ID_FIELD: name}]


def test_a_hostile_detail_cannot_choose_its_id(run, bus):
    async def use(outbox, table):
        name = await outbox.add("user.upsert", {**detail("fan", 1), ID_FIELD: "mine"})
        await until(lambda: bus.taken)
        return name

    assert run(use) == bus.taken[0][ID_FIELD] != "mine"


def test_without_a_bus_events_wait_and_the_next_process_publishes_them(run, bus):
    async def add(outbox, table):
        return [await outbox.add("user.upsert", detail("fan", number)) for number in range(250)]

    names = run(add, publishing=None)
    run(lambda outbox, table: until_empty(table))
    assert [taken[ID_FIELD] for taken in bus.taken] == names


def test_an_outage_loses_nothing_and_keeps_each_fans_order(run, bus, caplog):
    caplog.set_level(logging.WARNING)

    async def use(outbox, table):
        bus.error = BackendUnavailableError("--events: eventbridge://bus is out of reach")
        names = [await outbox.add("user.upsert", detail(f"fan-{n % 7}", n)) for n in range(100)]
        await until(lambda: bus.calls > 3)
        assert not bus.taken and len(await waiting(table)) == 100
        bus.error = None
        await until_empty(table)
        return names

    names = run(use)
    assert sorted(taken[ID_FIELD] for taken in bus.taken) == sorted(names)
    by_user: dict[str, list[int]] = defaultdict(list)
    for taken in bus.taken:
        by_user[taken["globalUserId"]].append(taken["number"])
    assert len(by_user) == 7
    assert all(numbers == sorted(numbers) for numbers in by_user.values())
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "wait" in said[0] and "again" in said[1]


def test_one_event_not_taken_holds_back_its_fans_later_ones_alone(run, bus):
    refusals = 3

    def verdict(detail: dict[str, Any]) -> Failure | None:
        nonlocal refusals
        if detail["globalUserId"] == "fan-0" and detail["number"] == 0 and refusals:
            refusals -= 1
            return Failure("unavailable", "not now", retryable=True)
        return None

    bus.verdict = verdict

    async def use(outbox, table):
        for number in range(4):
            for user in ("fan-0", "fan-1"):
                await outbox.add("user.upsert", detail(user, number))
        outbox.start()
        await until_empty(table)

    run(use, start=False)
    assert refusals == 0
    for user in ("fan-0", "fan-1"):
        assert [taken["number"] for taken in bus.taken if taken["globalUserId"] == user] == [0, 1, 2, 3]
    order = [taken["globalUserId"] for taken in bus.taken]
    assert order.index("fan-0") > 3, "the others had to wait"


def test_what_is_never_taken_is_set_aside_and_said_without_personal_data(run, bus, caplog):
    bus.verdict = lambda detail: Failure("refused", "MalformedDetail") if detail["number"] == 1 else None

    async def use(outbox, table):
        names = [await outbox.add("user.upsert", detail("fan", number)) for number in range(3)]
        await until_empty(table)
        return names, await table.query(REFUSED_PK)

    names, (aside,) = run(use)
    assert [taken["number"] for taken in bus.taken] == [0, 2]
    assert aside["reason"] == "MalformedDetail" and json.loads(aside["detail"])[ID_FIELD] == names[1]
    assert names[1] in caplog.text and "fan" not in caplog.text.replace("fan_identity", "")


@pytest.mark.parametrize("error", [UsageError("--events: no such bus"), BackendUnavailableError("away")], ids=str)
def test_a_wrong_setting_gives_nothing_up_either(run, bus, error):
    bus.error = error

    async def use(outbox, table):
        await outbox.add("user.upsert", detail("fan", 1))
        await until(lambda: bus.calls > 2)
        return len(await waiting(table))

    assert run(use) == 1


def test_of_two_processes_one_publishes_and_the_other_takes_over(run, bus, tmp_path):
    async def use(outbox, table):
        second_table = SqliteAsyncTable(SqliteStore(tmp_path / "outbox.db"), "outbox", "outbox", PATIENCE)
        second_bus = Bus()
        second = TableOutbox(second_table, second_bus)
        await outbox.add("user.upsert", detail("fan", 0))
        await until(lambda: bus.taken)
        second.start()
        for number in range(1, 20):
            await second.add("user.upsert", detail("fan", number))
        await until_empty(table)
        assert [taken["number"] for taken in bus.taken] == list(range(20)) and not second_bus.taken
        await outbox.close()
        await second.add("user.upsert", detail("fan", 20))
        await until(lambda: second_bus.taken)
        await second.close()
        await second_table.close()

    run(use)


def test_a_full_disk_fails_the_add_and_loses_nothing_that_was_added(full_disk, bus):
    path = full_disk(600_000) / "outbox.db"

    async def use(publishing: Any) -> list[str]:
        table = SqliteAsyncTable(SqliteStore(path), "outbox", "outbox", PATIENCE, durable=True)
        outbox = TableOutbox(table, publishing)
        names: list[str] = []
        if publishing is None:
            with pytest.raises(UnavailableError, match="the disk is full") as failed:
                while len(names) < 200:
                    names.append(await outbox.add("user.upsert", {**detail("fan", len(names)), "long": "x" * 10_000}))
            assert failed.value.source == "outbox"
        stored = [item["SK"].rpartition("#")[2] for item in await waiting(table)]
        await table.close()
        return names if publishing is None else stored

    names = asyncio.run(use(None))
    assert names and asyncio.run(use(bus)) == names


@pytest.mark.parametrize(
    "wrong", [{"x": object()}, {"x": "\ud800"}, {"x": "x" * 300_000}, {"globalUserId": "\ud800"}], ids=str
)
def test_what_no_event_can_hold_is_refused_at_once(run, wrong):
    async def use(outbox, table):
        with pytest.raises(UnsupportedItemError):
            await outbox.add("user.upsert", wrong)
        return await waiting(table)

    assert run(use) == []


def test_inline_an_event_is_published_before_the_answer(run, bus):
    async def use(outbox, table):
        await outbox.add("user.upsert", detail("fan", 1))
        return len(bus.taken), await waiting(table)

    assert run(use, inline=True) == (1, [])


def test_inline_what_an_outage_left_is_published_with_the_next_request(run, bus, monkeypatch):
    async def use(outbox, table):
        bus.error = BackendUnavailableError("away")
        for number in range(3):
            await outbox.add("user.upsert", detail("fan", number))
        await outbox.add("user.upsert", detail("other", 0))
        assert not bus.taken and len(await waiting(table)) == 4
        bus.error = None
        await outbox.add("user.upsert", detail("fan", 3))
        assert [taken["number"] for taken in bus.taken] == [0, 1, 2, 3]
        monkeypatch.setattr(module, "_LEFT_BEHIND_MS", -1)
        await outbox.add("user.upsert", detail("fan", 4))
        assert [taken["globalUserId"] for taken in bus.taken[4:]].count("other") == 1
        return await waiting(table)

    assert run(use, inline=True) == []


def test_inline_a_bus_that_hangs_does_not_keep_the_request(run, bus, monkeypatch):
    monkeypatch.setattr(module, "_INLINE_SECONDS", 0.2)
    end = threading.Event()

    def hang(detail: dict[str, Any]) -> None:
        end.wait(PATIENCE)

    bus.verdict = hang

    async def use(outbox, table):
        try:
            await outbox.add("user.upsert", detail("fan", 1))
            return len(await waiting(table))
        finally:
            end.set()

    assert run(use, inline=True) == 1


def test_the_same_fan_is_always_in_the_same_partition(run, bus):
    async def use(outbox, table):
        for number in range(40):
            await outbox.add("user.upsert", detail(f"fan-{number % 10}", number))
        places: dict[str, set[int]] = defaultdict(set)
        for shard in range(8):
            for item in await table.query(f"OUTBOX#{shard}"):
                places[item["user"]].add(shard)
        return places

    places = run(use, publishing=None, shards=8)
    assert len(places) == 10 and all(len(shards) == 1 for shards in places.values())
    assert len(set.union(*places.values())) > 1
