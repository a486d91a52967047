"""Readers of shards over a stream in memory that splits, merges, trims, throttles and expires. No server."""

import random
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fan_identity.domain.records import RawRecord
from fan_identity.io.errors import BackendUnavailableError
from fan_identity.io.ports import Share, StreamRecords
from fan_identity.io.shard_reader import ShardReader
from fan_identity.io.shards import (
    LATEST,
    SHARD_END,
    TRIM_HORIZON,
    Entry,
    IteratorExpiredError,
    Lineage,
    Listing,
    Page,
    Shard,
    ShardGoneError,
    Start,
    StartKind,
    ThrottledError,
    TrimmedError,
    is_of_share,
)

SLOTS = 64
"""Keys fall into so many slots; a shard holds a range of them."""


class Clock:
    """Goes on a little whenever it is read."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        self.now += 0.004
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


class InlinePool:
    """Runs at once."""

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass
class FakeShard:
    shard_id: str
    low: int
    high: int
    parents: tuple[str, ...] = ()
    closed: bool = False
    entries: list[Entry] = field(default_factory=list)
    trimmed: int = 0  # the first so many entries are gone


class FakeStream:
    """The ``ShardSource``, and what its user writes to it. Times are epoch milliseconds of its own."""

    def __init__(self, shards: int = 1, *, says_caught_up: bool = True) -> None:
        self.name = "fake://stream"
        self.start: Start = TRIM_HORIZON
        self.end_ms: int | None = None
        self.discover_seconds = 5.0
        self.busy_seconds = 0.0
        self.idle_seconds = 0.05
        self.time_precision_ms = 0
        self.empty_pages_to_end = 3
        self.page_entries = 3
        self.now_ms = 1_700_000_000_000
        self.says_caught_up = says_caught_up
        self.silently_trimmed = False
        self.failures: dict[str, list[Exception]] = {}
        self.reads: list[str] = []
        self.unlisted: set[str] = set()
        self.empty_pages: dict[str, int] = {}
        self.generation = 0
        self.sequence = 100
        self.shards: dict[str, FakeShard] = {}
        for index in range(shards):
            self._new(index * SLOTS // shards, (index + 1) * SLOTS // shards, ())

    def _new(self, low: int, high: int, parents: tuple[str, ...]) -> FakeShard:
        shard = FakeShard(f"shard-{len(self.shards):04}", low, high, parents)
        self.shards[shard.shard_id] = shard
        return shard

    # -- what is written

    def open_shards(self) -> list[FakeShard]:
        return sorted((shard for shard in self.shards.values() if not shard.closed), key=lambda shard: shard.low)

    def put(self, key: str, *bodies: str) -> str:
        """One record, of as many user records as there are bodies; returns the shard's id."""
        slot = crc32(key.encode()) % SLOTS
        shard = next(shard for shard in self.open_shards() if shard.low <= slot < shard.high)
        self.sequence += 1
        records = [RawRecord(body.encode(), f"{self.sequence}", body.encode()) for body in bodies]
        shard.entries.append(Entry(str(self.sequence), self.now_ms, records))
        return shard.shard_id

    def split(self, shard_id: str) -> tuple[str, str]:
        shard = self.shards[shard_id]
        middle = (shard.low + shard.high) // 2
        shard.closed = True
        parents = (shard_id,)
        return self._new(shard.low, middle, parents).shard_id, self._new(middle, shard.high, parents).shard_id

    def merge(self, left: str, right: str) -> str:
        one, other = self.shards[left], self.shards[right]
        assert one.high == other.low
        one.closed = other.closed = True
        return self._new(one.low, other.high, (left, right)).shard_id

    def expire_iterators(self) -> None:
        self.generation += 1

    def fail(self, shard_id: str, *errors: Exception) -> None:
        """The next reads of a shard end so."""
        self.failures.setdefault(shard_id, []).extend(errors)

    # -- the ShardSource

    def list_shards(self) -> Listing:
        listed = {
            name: Shard(name, shard.parents, shard.closed)
            for name, shard in self.shards.items()
            if name not in self.unlisted
        }
        return Listing(listed, self.now_ms)

    def iterator(self, shard_id: str, start: Start) -> str:
        shard = self._existing(shard_id)
        at = shard.trimmed
        if start.kind is StartKind.LATEST:
            at = len(shard.entries)
        elif start.kind is StartKind.AT_TIMESTAMP:
            while at < len(shard.entries) and shard.entries[at].arrived_ms < start.time_ms:
                at += 1
        elif start.kind is StartKind.AT_SEQUENCE_NUMBER:
            at = next((i for i, entry in enumerate(shard.entries) if int(entry.sequence) >= int(start.sequence)), at)
            if at < shard.trimmed:
                if not self.silently_trimmed:
                    raise TrimmedError
                at = shard.trimmed
        return f"{shard_id}/{at}/{self.generation}"

    def read(self, shard_id: str, iterator: str) -> Page:
        self.reads.append(shard_id)
        shard = self._existing(shard_id)
        if self.failures.get(shard_id):
            raise self.failures[shard_id].pop(0)
        name, at_text, generation = iterator.split("/")
        assert name == shard_id
        if int(generation) != self.generation:
            raise IteratorExpiredError
        at = max(int(at_text), shard.trimmed)
        if self.empty_pages.get(shard_id, 0):
            self.empty_pages[shard_id] -= 1
            return Page((), iterator, False if self.says_caught_up else None)
        entries = shard.entries[at : at + self.page_entries]
        behind = at + len(entries)
        is_up = behind == len(shard.entries)
        return Page(
            entries,
            None if is_up and shard.closed else f"{shard_id}/{behind}/{self.generation}",
            is_up if self.says_caught_up else None,
        )

    def _existing(self, shard_id: str) -> FakeShard:
        if shard_id in self.unlisted:
            raise ShardGoneError
        return self.shards[shard_id]


class Bench:
    """A stream with a commit store and readers over it."""

    def __init__(self, shards: int = 1, **options: Any) -> None:
        self.stream = FakeStream(shards, **options)
        self.clock = Clock()
        self.committed: dict[str, str] = {}

    def reader(
        self, share: Share | None = None, positions: dict[str, str] | None = None, *, bounded: bool = False
    ) -> ShardReader:
        return ShardReader(
            self.stream,
            share or Share(),
            positions or {},
            lambda shard_id: self.committed.get(shard_id, ""),
            bounded=bounded,
            pool=InlinePool(),
            clock=self.clock,
            pause=self.clock.pause,
        )

    def commit(self, batch: StreamRecords) -> None:
        self.committed[batch.partition] = batch.position

    def drain(
        self, *readers: ShardReader, limit: int = 100, commits: bool = True, idle_polls: int = 60
    ) -> list[StreamRecords]:
        """Polls in turn until nothing comes any more (or a bounded read ended)."""
        batches: list[StreamRecords] = []
        idle = 0
        while idle < idle_polls and not all(reader.ended() for reader in readers):
            for reader in readers:
                batch = reader.poll(limit)
                if batch is None:
                    idle += 1
                    continue
                idle = 0
                batches.append(batch)
                if commits:
                    self.commit(batch)
        return batches


def bodies(batches: list[StreamRecords]) -> list[str]:
    return [record.payload.decode() for batch in batches for record in batch.records]


def key_of(stream: FakeStream, shard_id: str) -> str:
    """A key that falls into a shard."""
    shard = stream.shards[shard_id]
    return next(f"k{n}" for n in range(10_000) if shard.low <= crc32(f"k{n}".encode()) % SLOTS < shard.high)


def share_of(shard_id: str, count: int) -> int:
    return next(index for index in range(count) if is_of_share(shard_id, Share(index, count)))


# -- lineage


def test_child_waits_until_another_reader_has_committed_its_parents_end() -> None:
    bench = Bench()
    stream = bench.stream
    for n in range(7):
        stream.put("k", f"{n}")
    stream.split("shard-0000")
    for n in range(7, 12):
        child = stream.put("k", f"{n}")
    parents = bench.reader(Share(share_of("shard-0000", 64), 64))
    children = bench.reader(Share(share_of(child, 64), 64))

    assert bench.drain(children, idle_polls=100) == []
    from_parent = bench.drain(parents, commits=False)
    assert bodies(from_parent) == [f"{n}" for n in range(7)]
    assert from_parent[-1] == StreamRecords("shard-0000", (), SHARD_END)
    for batch in from_parent[:-1]:
        bench.commit(batch)
    assert bench.drain(children, idle_polls=100) == []
    bench.commit(from_parent[-1])
    assert bodies(bench.drain(children)) == [f"{n}" for n in range(7, 12)]


def test_child_of_a_merge_waits_for_both_parents() -> None:
    bench = Bench(2)
    stream = bench.stream
    left, right = key_of(stream, "shard-0000"), key_of(stream, "shard-0001")
    stream.put(left, "left")
    stream.put(right, "right")
    stream.merge("shard-0000", "shard-0001")
    stream.put(left, "merged")
    count = 64
    readers = {name: bench.reader(Share(share_of(name, count), count)) for name in stream.shards}

    assert bodies(bench.drain(readers["shard-0000"])) == ["left"]
    assert bench.committed == {"shard-0000": SHARD_END}
    assert bench.drain(readers["shard-0002"], idle_polls=100) == []
    assert bodies(bench.drain(readers["shard-0001"])) == ["right"]
    assert bodies(bench.drain(readers["shard-0002"])) == ["merged"]


def test_grandchildren_wait_through_a_generation_that_is_empty() -> None:
    bench = Bench()
    stream = bench.stream
    stream.put("k", "0")
    for child in stream.split("shard-0000"):
        stream.split(child)
    stream.put("k", "1")
    assert bodies(bench.drain(bench.reader())) == ["0", "1"]
    assert [shard for shard, position in bench.committed.items() if position == SHARD_END] == [
        "shard-0000",
        "shard-0001",
        "shard-0002",
    ]


def test_where_nothing_is_ever_committed_it_is_enough_to_be_polled_again() -> None:
    bench = Bench()
    stream = bench.stream
    stream.put("k", "0")
    stream.split("shard-0000")
    stream.put("k", "1")
    reader = bench.reader()
    first, end = _poll(reader), _poll(reader)
    assert (bodies([first]), end.position) == (["0"], SHARD_END)
    assert set(stream.reads) == {"shard-0000"}
    assert bodies([_poll(reader)]) == ["1"]


def test_where_something_is_committed_for_a_parent_its_end_must_be() -> None:
    bench = Bench()
    stream = bench.stream
    stream.put("k", "0")
    stream.split("shard-0000")
    stream.put("k", "1")
    reader = bench.reader()
    bench.commit(_poll(reader))
    end = _poll(reader)
    assert end.position == SHARD_END
    assert bench.drain(reader, idle_polls=100) == []
    bench.commit(end)
    assert bodies(bench.drain(reader)) == ["1"]


def test_end_in_a_checkpoint_that_was_not_committed_comes_again() -> None:
    bench = Bench()
    stream = bench.stream
    stream.put("k", "0")
    stream.split("shard-0000")
    child = stream.put("k", "1")
    bench.committed["shard-0000"] = stream.shards["shard-0000"].entries[0].sequence
    parents = bench.reader(Share(share_of("shard-0000", 64), 64), {"shard-0000": SHARD_END})
    children = bench.reader(Share(share_of(child, 64), 64))
    assert bench.drain(children) == []
    assert bench.drain(parents) == [StreamRecords("shard-0000", (), SHARD_END)]
    assert bodies(bench.drain(children)) == ["1"]
    assert bench.drain(bench.reader(Share(share_of("shard-0000", 64), 64), {"shard-0000": SHARD_END})) == []


def test_parents_that_retention_has_taken_are_not_waited_for() -> None:
    bench = Bench()
    stream = bench.stream
    stream.put("k", "0")
    stream.split("shard-0000")
    stream.put("k", "1")
    stream.unlisted = {"shard-0000"}
    assert bodies(bench.drain(bench.reader())) == ["1"]


def test_shard_that_retention_takes_while_it_is_read_is_ended_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    stream = bench.stream
    for n in range(12):
        stream.put("k", f"{n}")
    stream.split("shard-0000")
    stream.put("k", "later")
    reader = bench.reader()
    first = _poll(reader)
    bench.commit(first)
    stream.unlisted = {"shard-0000"}
    read = bodies([first, *bench.drain(reader, idle_polls=2_000)])
    assert read[:3] == ["0", "1", "2"]
    assert read[-1] == "later"
    assert "shard-0000 is gone" in caplog.text


def test_split_while_reading_is_found_at_once_when_the_parent_ends() -> None:
    bench = Bench()
    stream = bench.stream
    stream.discover_seconds = 1e9
    stream.put("k", "0")
    reader = bench.reader()
    assert bodies(bench.drain(reader)) == ["0"]
    stream.split("shard-0000")
    stream.put("k", "1")
    assert bodies(bench.drain(reader)) == ["1"]


def test_shares_cover_every_shard_once() -> None:
    names = [f"shardId-{n:012}" for n in range(500)]
    for count in (1, 2, 7):
        owners = [[index for index in range(count) if is_of_share(name, Share(index, count))] for name in names]
        assert all(len(owner) == 1 for owner in owners)
        assert {owner[0] for owner in owners} == set(range(count))


def test_ancestors_are_known_as_far_as_listed_and_one_further() -> None:
    shards = [Shard("c", ("b1", "b2")), Shard("b1", ("a",)), Shard("b2", ("gone",)), Shard("a", ("long gone",))]
    lineage = Lineage(Listing({shard.shard_id: shard for shard in shards}, 0))
    assert lineage.ancestors("c") == ["b1", "b2", "a", "gone", "long gone"]
    assert lineage.parents("b2") == []
    assert lineage.closed() == {"b1", "b2", "a"}


def test_shard_counts_as_existing_until_two_listings_in_a_row_lack_it() -> None:
    both = Listing({"p": Shard("p"), "c": Shard("c", ("p",))}, 0)
    one = Listing({"c": Shard("c", ("p",))}, 0)
    lineage = Lineage(both)
    lineage.update(one)
    assert lineage.parents("c") == ["p"]
    lineage.update(one)
    assert lineage.parents("c") == []


# -- one shard


def test_positions_resume_behind_what_was_returned() -> None:
    bench = Bench(3)
    keys = [f"k{n}" for n in range(30)]
    for key in keys:
        bench.stream.put(key, key)
    reader = bench.reader()
    first = [_poll(reader, limit=2) for _ in range(5)]
    assert bench.drain(bench.reader(positions=reader.positions()), limit=2) != []
    bench.committed.clear()
    rest = bench.drain(bench.reader(positions=reader.positions()), limit=2)
    assert sorted(bodies(first) + bodies(rest)) == sorted(keys)
    # And by what is committed, where there is no checkpoint.
    for batch in first:
        bench.committed[batch.partition] = batch.position
    for batch in rest:
        bench.committed[batch.partition] = batch.position
    assert bench.drain(bench.reader()) == []


def test_position_wins_over_what_is_committed() -> None:
    bench = Bench()
    for n in range(3):
        bench.stream.put("k", f"{n}")
    first, second, _ = (entry.sequence for entry in bench.stream.shards["shard-0000"].entries)
    bench.committed["shard-0000"] = second
    assert bodies(bench.drain(bench.reader(positions={"shard-0000": first}))) == ["1", "2"]


def test_closed_shard_ends_once_and_is_never_read_again() -> None:
    bench = Bench()
    bench.stream.put("k", "0")
    bench.stream.split("shard-0000")
    reader = bench.reader()
    batches = bench.drain(reader)
    assert [batch.position for batch in batches].count(SHARD_END) == 1
    assert reader.positions()["shard-0000"] == SHARD_END
    bench.stream.reads.clear()
    assert bench.drain(bench.reader(positions=reader.positions())) == []
    assert "shard-0000" not in bench.stream.reads


def test_positions_of_ended_shards_go_with_the_shards() -> None:
    bench = Bench()
    bench.stream.split("shard-0000")
    reader = bench.reader()
    bench.drain(reader)
    assert reader.positions() == {"shard-0000": SHARD_END}
    bench.stream.unlisted = {"shard-0000"}
    bench.drain(reader, idle_polls=3_000)
    assert reader.positions() == {}


def test_expired_iterators_are_replaced_behind_the_last_record() -> None:
    bench = Bench()
    for n in range(10):
        bench.stream.put("k", f"{n}")
    reader = bench.reader()
    read: list[StreamRecords] = []
    for _ in range(40):
        bench.stream.expire_iterators()
        read += bench.drain(reader, idle_polls=1)
    assert bodies(read) == [f"{n}" for n in range(10)]


def test_throttled_shard_waits_and_the_others_go_on() -> None:
    bench = Bench(2)
    stream = bench.stream
    slow, quick = key_of(stream, "shard-0000"), key_of(stream, "shard-0001")
    for n in range(9):
        stream.put(slow, f"slow {n}")
        stream.put(quick, f"quick {n}")
    stream.fail("shard-0000", *(ThrottledError() for _ in range(4)))
    reader = bench.reader()
    read: list[StreamRecords] = []
    while "slow 0" not in bodies(read):
        read += [batch for batch in [reader.poll(100)] if batch]
    assert stream.reads.count("shard-0000") <= 4 + 2  # it is not hammered: each refusal, and a page or two
    assert bodies(read + bench.drain(reader)) == [f"quick {n}" for n in range(9)] + [f"slow {n}" for n in range(9)]


@pytest.mark.parametrize("silently", [True, False])
def test_trimmed_position_is_warned_of_and_goes_on_with_the_oldest(
    silently: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    stream = bench.stream
    for n in range(6):
        stream.put("k", f"{n}")
    shard = stream.shards["shard-0000"]
    shard.trimmed = 3
    stream.silently_trimmed = silently
    bench.committed["shard-0000"] = shard.entries[0].sequence
    assert bodies(bench.drain(bench.reader())) == ["3", "4", "5"]
    assert "no longer has the record reading had come to" in caplog.text


def test_position_whose_record_is_still_there_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    for n in range(4):
        bench.stream.put("k", f"{n}")
    bench.committed["shard-0000"] = bench.stream.shards["shard-0000"].entries[3].sequence
    reader = bench.reader()
    assert bench.drain(reader) == []
    bench.stream.put("k", "4")
    assert bodies(bench.drain(reader)) == ["4"]
    assert caplog.text == ""


@pytest.mark.parametrize("position", ["rubbish", "@", "@x", "1" * 500, "-1", "\u0661"])
def test_position_that_is_none_starts_over(position: str, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.stream.put("k", "0")
    assert bodies(bench.drain(bench.reader(positions={"shard-0000": position}))) == ["0"]
    assert "a position that is none" in caplog.text


def test_record_that_packs_more_than_the_limit_comes_whole() -> None:
    bench = Bench()
    bench.stream.put("k", "a", "b")
    bench.stream.put("k", *"cdefghij")
    bench.stream.put("k")
    bench.stream.put("k", "l")
    batches = bench.drain(bench.reader(), limit=3)
    assert [bodies([batch]) for batch in batches] == [["a", "b"], [*"cdefghij"], ["l"]]
    sequences = [entry.sequence for entry in bench.stream.shards["shard-0000"].entries]
    assert [batch.position for batch in batches] == [sequences[0], sequences[2], sequences[3]]


def test_outage_is_raised_and_reading_goes_on_after_it() -> None:
    bench = Bench()
    bench.stream.put("k", "0")
    bench.stream.fail("shard-0000", BackendUnavailableError("--source: away"))
    reader = bench.reader()
    with pytest.raises(BackendUnavailableError):
        reader.poll(10)
    assert bodies(bench.drain(reader)) == ["0"]


# -- starts


def test_latest_begins_with_what_is_written_after_opening() -> None:
    bench = Bench(2)
    stream = bench.stream
    stream.start = LATEST
    left, right = key_of(stream, "shard-0000"), key_of(stream, "shard-0001")
    stream.put(left, "old")
    stream.now_ms += 5_000
    reader = bench.reader()
    stream.now_ms += 5_000
    stream.put(left, "new left")
    stream.put(right, "new right")
    assert sorted(bodies(bench.drain(reader))) == ["new left", "new right"]


def test_latest_shard_without_records_is_resumed_from_when_it_was_opened() -> None:
    bench = Bench()
    stream = bench.stream
    stream.start = LATEST
    stream.put("k", "old")
    stream.now_ms += 5_000
    reader = bench.reader()
    mark = _poll(reader)
    assert (list(mark.records), mark.position) == ([], f"@{stream.now_ms}")
    assert reader.positions() == {"shard-0000": mark.position}
    reader.close()
    stream.now_ms += 5_000
    stream.put("k", "while nobody read")
    resumed = bench.reader(positions={"shard-0000": mark.position})
    assert bodies(bench.drain(resumed)) == ["while nobody read"]


def test_latest_is_not_for_shards_that_come_later() -> None:
    bench = Bench()
    stream = bench.stream
    stream.start = LATEST
    stream.put("k", "old")
    stream.now_ms += 5_000
    reader = bench.reader()
    read = bench.drain(reader)
    stream.now_ms += 5_000
    stream.split("shard-0000")
    stream.put("k", "0")
    # Neither for the reader that sees them come …
    assert bodies(read + bench.drain(reader)) == ["0"]
    stream.now_ms += 5_000
    child = stream.put("k", "1")
    stream.split(child)
    stream.put("k", "2")
    # … nor for one that is started when they are there already.
    assert bodies(bench.drain(bench.reader())) == ["1", "2"]


def test_latest_is_not_for_a_shard_that_is_listed_late() -> None:
    bench = Bench(2)
    stream = bench.stream
    stream.start = LATEST
    stream.unlisted = {"shard-0001"}
    reader = bench.reader()
    bench.drain(reader)
    stream.now_ms += 5_000
    stream.put(key_of(stream, "shard-0001"), "0")
    stream.unlisted = set()
    stream.now_ms += 5_000
    assert bodies(bench.drain(reader, idle_polls=2_000)) == ["0"]


def test_latest_leaves_out_closed_shards_and_still_reads_their_children() -> None:
    bench = Bench()
    stream = bench.stream
    stream.start = LATEST
    stream.put("k", "old")
    stream.split("shard-0000")
    child = stream.put("k", "old too")
    stream.now_ms += 5_000
    parents = bench.reader(Share(share_of("shard-0000", 64), 64))
    children = bench.reader(Share(share_of(child, 64), 64))
    stream.now_ms += 5_000
    stream.put("k", "new")
    assert bodies(bench.drain(children)) == []
    assert bench.drain(parents) == [StreamRecords("shard-0000", (), SHARD_END)]
    assert bodies(bench.drain(children)) == ["new"]


def test_start_time_is_for_every_shard_there_is_even_where_the_service_cannot_start_at_a_time() -> None:
    bench = Bench()
    stream = bench.stream
    for n in range(5):
        stream.now_ms += 1_000
        stream.put("k", f"{n}")
    stream.start = Start(StartKind.AT_TIMESTAMP, time_ms=stream.now_ms - 1_000)
    assert bodies(bench.drain(bench.reader())) == ["3", "4"]
    bench.committed.clear()
    stream.iterator = lambda shard_id, start: FakeStream.iterator(stream, shard_id, TRIM_HORIZON)
    batches = bench.drain(bench.reader())
    assert bodies(batches) == ["3", "4"]
    assert [batch.position for batch in batches] == [
        stream.shards["shard-0000"].entries[index].sequence for index in (2, 4)
    ]


# -- bounded


@pytest.mark.parametrize("says_caught_up", [True, False])
def test_bounded_read_has_all_that_was_there_and_ends_though_writing_goes_on(says_caught_up: bool) -> None:
    bench = Bench(2, says_caught_up=says_caught_up)
    stream = bench.stream
    stream.page_entries = 2
    keys = [f"k{n}" for n in range(40)]
    for key in keys:
        stream.put(key, key)
    split = stream.split("shard-0000")
    for key in keys:
        stream.put(key, f"{key} again")
    # Pages without records come in the middle, too.
    stream.empty_pages = {split[0]: 2, "shard-0001": 1}
    there = len(keys) * 2
    reader = bench.reader(bounded=True)
    read: list[StreamRecords] = []
    for n in range(2_000):
        if reader.ended():
            break
        stream.now_ms += 700
        for key in keys[:4]:
            stream.put(key, f"{key} later {n}")
        batch = reader.poll(5)
        if batch is not None:
            read.append(batch)
            bench.commit(batch)
    assert reader.ended()
    found = bodies(read)
    assert {body for body in found if "later" not in body} == {*keys, *(f"{key} again" for key in keys)}
    assert len([body for body in found if "later" not in body]) == there
    for key in keys:
        assert [body for body in found if body in (key, f"{key} again")] == [key, f"{key} again"]


def test_bounded_read_of_an_idle_stream_ends() -> None:
    for says in (True, False):
        bench = Bench(3, says_caught_up=says)
        reader = bench.reader(bounded=True)
        assert bench.drain(reader) == []
        assert reader.ended()


def test_bounded_read_is_the_first_shares_whole() -> None:
    bench = Bench(8)
    for n in range(50):
        bench.stream.put(f"k{n}", f"{n}")
    second = bench.reader(Share(1, 3), bounded=True)
    assert second.ended()
    assert len(bodies(bench.drain(bench.reader(Share(0, 3), bounded=True)))) == 50


def test_unbounded_read_never_ends() -> None:
    bench = Bench()
    bench.stream.put("k", "0")
    reader = bench.reader()
    bench.drain(reader)
    assert not reader.ended()


def test_end_time_cuts_a_shard_and_leaves_its_children_to_a_later_read() -> None:
    bench = Bench()
    stream = bench.stream
    times: list[int] = []
    for n in range(4):
        stream.now_ms += 10_000
        times.append(stream.now_ms)
        stream.put("k", f"{n}")
    for child in stream.split("shard-0000"):
        stream.split(child)
    stream.now_ms += 10_000
    stream.put("k", "4")
    stream.now_ms += 60_000
    stream.end_ms = times[2]
    reader = bench.reader(bounded=True)
    assert bodies(bench.drain(reader)) == ["0", "1", "2"]
    assert reader.ended()
    stream.end_ms = None
    assert bodies(bench.drain(bench.reader(bounded=True))) == ["3", "4"]


def test_end_time_behind_a_reshard_is_found_in_the_children() -> None:
    bench = Bench()
    stream = bench.stream
    stream.put("k", "0")
    for child in stream.split("shard-0000"):
        stream.split(child)
    stream.now_ms += 10_000
    stream.put("k", "1")
    stream.end_ms = stream.now_ms
    stream.now_ms += 10_000
    stream.put("k", "2")
    reader = bench.reader(bounded=True)
    assert bodies(bench.drain(reader)) == ["0", "1"]
    assert reader.ended()


# -- everything at once

_OPERATIONS = {
    "put": 4,
    "poll": 6,
    "split": 1,
    "merge": 1,
    "crash": 1,
    "restart": 1,
    "expire": 1,
    "throttle": 1,
    "wait": 1,
}
"""What may happen, and how often beside the others."""


class Ledger:
    """Writes numbered records of several keys, reads them with several readers, notes the order of effects."""

    def __init__(self, seed: int, *, most_readers: int, commits: bool) -> None:
        self.random = random.Random(seed)
        readers = self.random.randint(1, most_readers)
        self.bench = Bench(2)
        self.stream = self.bench.stream
        self.stream.page_entries = self.random.randint(1, 4)
        self.commits = commits
        self.written: dict[str, int] = {}
        self.effects: dict[str, list[int]] = {}
        self.readers = [self.bench.reader(Share(index, readers)) for index in range(readers)]
        self.checkpoints: list[dict[str, str]] = [{} for _ in range(readers)]

    def run(self, operations: int) -> None:
        for name in self.random.choices(list(_OPERATIONS), list(_OPERATIONS.values()), k=operations):
            getattr(self, name)(self.random.randint(0, 20))
        self.finish()
        self.check()

    def put(self, number: int) -> None:
        for n in range(number):
            key = f"k{(number * 7 + n) % 12}"
            self.stream.put(key, f"{key} {self.written.get(key, 0)}")
            self.written[key] = self.written.get(key, 0) + 1

    def split(self, number: int) -> None:
        shards = [shard for shard in self.stream.open_shards() if shard.high - shard.low > 1]
        if shards and len(self.stream.shards) < 30:
            self.stream.split(shards[number % len(shards)].shard_id)

    def merge(self, number: int) -> None:
        shards = self.stream.open_shards()
        if len(shards) > 1:
            at = number % (len(shards) - 1)
            self.stream.merge(shards[at].shard_id, shards[at + 1].shard_id)

    def poll(self, number: int) -> bool:
        """One poll, its batch's effects, their commit, and a checkpoint: as a fused pipeline does it."""
        at = number % len(self.readers)
        batch = self.readers[at].poll(self.random.randint(1, 5))
        if batch is None:
            return False
        for body in bodies([batch]):
            key, _, n = body.partition(" ")
            self.effects.setdefault(key, []).append(int(n))
        if self.commits:
            self.bench.commit(batch)
        self.checkpoints[at] = self.readers[at].positions()
        return True

    def crash(self, number: int) -> None:
        """A batch is read and lost; the reader is opened again from its checkpoint, or from what is committed."""
        at = number % len(self.readers)
        self.readers[at].poll(5)
        keep = not self.commits or self.random.random() < 0.5
        self.reopen(at, self.checkpoints[at] if keep else {})

    def restart(self, number: int) -> None:
        at = number % len(self.readers)
        self.reopen(at, self.readers[at].positions())

    def reopen(self, at: int, positions: dict[str, str]) -> None:
        self.readers[at].close()
        self.readers[at] = self.bench.reader(Share(at, len(self.readers)), positions)

    def expire(self, number: int) -> None:
        self.stream.expire_iterators()

    def throttle(self, number: int) -> None:
        names = list(self.stream.shards)
        self.stream.fail(names[number % len(names)], *(ThrottledError() for _ in range(number % 3 + 1)))

    def wait(self, number: int) -> None:
        self.bench.clock.pause(float(number))

    def finish(self) -> None:
        self.stream.failures.clear()  # else a shard might be left alone for longer than is waited here
        idle = 0
        while idle < 50:
            came = [self.poll(index) for index in range(len(self.readers))]
            idle = 0 if any(came) else idle + 1
            self.bench.clock.pause(0.5)

    def check(self) -> None:
        for key, number in self.written.items():
            first_time = list(dict.fromkeys(self.effects.get(key, [])))
            assert first_time == list(range(number)), key


# A seed stands for a history: drawn one by one, operations are few and lopsided, and show nothing.
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_no_key_loses_a_record_or_its_order_whatever_happens(seed: int) -> None:
    Ledger(seed, most_readers=3, commits=True).run(60)


@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_order_holds_for_one_reader_though_nothing_is_ever_committed(seed: int) -> None:
    Ledger(seed, most_readers=1, commits=False).run(60)


def _poll(reader: ShardReader, limit: int = 100) -> StreamRecords:
    for _ in range(100):
        batch = reader.poll(limit)
        if batch is not None:
            return batch
    pytest.fail("nothing came")
