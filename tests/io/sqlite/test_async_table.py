"""A store's table beside workers that write; what is the same for every table stands in tests/services."""

import asyncio
import sqlite3
import threading

import pytest

from fan_identity.io.errors import UnavailableError
from fan_identity.io.sqlite.async_table import SqliteAsyncTable
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable

ITEM = {"PK": "p", "SK": "s"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fans.db"


def run(path, use, deadline: float = 20.0, **options):
    async def running():
        table = SqliteAsyncTable(SqliteStore(path), "fans", "demand", deadline, **options)
        try:
            return await use(table)
        finally:
            await table.close()

    return asyncio.run(running())


def test_reads_do_not_wait_for_a_worker_that_writes_and_writes_give_up(path):
    workers = SqliteStore(path)
    SqliteTable(workers, "fans").put(ITEM)

    async def use(table):
        with workers.transaction():
            assert await table.get("p", "s") == ITEM
            with pytest.raises(UnavailableError) as failed:
                await table.put_revision(ITEM, 0)
        return failed.value.source

    assert run(path, use, deadline=0.3) == "demand"


def test_a_write_waits_for_a_worker_that_ends_in_time(path):
    workers = SqliteStore(path)
    workers.connection  # noqa: B018
    held, end = threading.Event(), threading.Event()

    def work() -> None:
        with workers.transaction():
            held.set()
            end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    held.wait()

    async def use(table):
        writing = asyncio.create_task(table.put_revision(ITEM, 0))
        await asyncio.sleep(0)
        end.set()
        return await writing

    assert run(path, use)
    thread.join()


def test_writes_that_wait_together_share_a_transaction(path):
    committed: list[int] = []

    async def use(table):
        store = table._store
        before = store.transaction

        def counted():
            committed.append(1)
            return before()

        store.transaction = counted
        return await asyncio.gather(*(table.put_revision({**ITEM, "SK": str(n)}, 0) for n in range(100)))

    assert run(path, use) == [True] * 100
    assert len(committed) < 50
    assert sqlite3.connect(path).execute("SELECT count(*) FROM items").fetchone() == (100,)


@pytest.mark.parametrize(("durable", "level"), [(False, 1), (True, 2)])
def test_how_durable_a_write_is(path, durable, level):
    async def use(table):
        await table.put_revision(ITEM, 0)
        return table._writer.submit(
            lambda: table._store.connection.execute("PRAGMA synchronous").fetchone()[0]
        ).result()

    assert run(path, use, durable=durable) == level


def test_a_full_disk_fails_the_write_and_keeps_what_was_there(full_disk):
    path = full_disk(500_000) / "fans.db"

    async def use(table):
        written = 0
        with pytest.raises(UnavailableError, match="the disk is full"):
            while written < 100:
                await table.put_revision({**ITEM, "SK": str(written), "text": "x" * 20_000}, 0)
                written += 1
        return written, len(await table.query("p"))

    written, found = run(path, use)
    assert written == found > 0


def test_what_is_no_store_is_not_available(tmp_path):
    (tmp_path / "fans.db").write_text("no store at all, but longer than a header of SQLite's " * 9)

    async def use(table):
        with pytest.raises(UnavailableError, match="demand"):
            await table.get("p", "s")

    run(tmp_path / "fans.db", use)
