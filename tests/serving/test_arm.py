"""The ARM lookup: a score, an unknown fan or an error, never one for another; an outage costs no waiting."""

import asyncio

import pytest

from fan_identity.domain.keys import LATEST_SK, user_pk
from fan_identity.io.errors import BackendUnavailableError, UnavailableError, UsageError
from fan_identity.serving.arm import ArmLookup, shown
from fan_identity.serving.data_sources import ArmScore

from .fakes import MemoryTable


class Cache:
    """A cache in memory that can be away, and counts what it is asked."""

    def __init__(self):
        self.entries = {}
        self.away = False
        self.asked = 0
        self.gate = None

    async def get(self, key):
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise BackendUnavailableError("--cache: away")
        return self.entries.get(key)

    async def get_many(self, keys):
        self.asked += 1
        if self.away:
            raise BackendUnavailableError("--cache: away")
        return [self.entries.get(key) for key in keys]

    async def check(self):
        await self.get("")

    async def close(self):
        pass


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def cache():
    return Cache()


@pytest.fixture
def table():
    return MemoryTable("fan_identity")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lookup(cache, table, clock):
    return ArmLookup(cache, lambda: table, clock)


GOOD = b'{"global_user_id":"a","arm_risk":4,"timestamp":1718355600000,"modelVersion":"m","version":"1"}'


def test_an_entry_is_a_score_and_none_is_an_unknown_fan(cache, lookup):
    cache.entries["user:a"] = GOOD
    assert asyncio.run(lookup.get("a")) == ArmScore(4, 1_718_355_600_000, "m")
    assert asyncio.run(lookup.get("b")) is None
    assert asyncio.run(lookup.get_many(["b", "a"])) == [None, ArmScore(4, 1_718_355_600_000, "m")]


def test_the_references_four_fields_are_enough(cache, lookup):
    cache.entries["user:a"] = b'{"global_user_id":"a","arm_risk":1,"timestamp":"x","score_date":"2024-06-14"}'
    assert asyncio.run(lookup.get("a")) == ArmScore(1)


@pytest.mark.parametrize(
    "entry",
    [
        *(b"", b"hello", b"\xff", b"null", b"3", b"[]", b"{}", b"[" * 5_000),
        *(b'{"arm_risk":%s}' % risk for risk in (b"0", b"6", b"-1", b"2.5", b'"3"', b"true", b"null", b"1e400")),
        b'{"arm_risk":3,"global_user_id":"b"}',
        b'{"arm_risk":3,"global_user_id":7}',
    ],
)
def test_an_entry_that_cannot_be_used_is_an_error_and_no_unknown_fan(cache, table, lookup, entry):
    cache.entries["user:a"] = entry
    table.add(user_pk("a"), LATEST_SK, armRisk=2)
    with pytest.raises(UnavailableError) as raised:
        asyncio.run(lookup.get("a"))
    assert raised.value.source == "arm"
    good, bad = asyncio.run(lookup.outcomes(["c", "a"]))
    assert good is None and isinstance(bad, UnavailableError)
    with pytest.raises(UnavailableError):
        asyncio.run(lookup.get_many(["c", "a"]))
    assert table.calls == 0


def test_while_the_cache_is_away_the_table_answers_marked(cache, table, lookup):
    cache.away = True
    table.add(user_pk("a"), LATEST_SK, armRisk=2, occurredAt="2024-06-14T09:00:00.000Z", modelVersion="m")
    assert asyncio.run(lookup.get("a")) == ArmScore(2, 1_718_355_600_000, "m", stale=True)
    assert asyncio.run(lookup.get("b")) is None
    assert asyncio.run(lookup.get_many(["b", "a"]))[1].stale


@pytest.mark.parametrize("risk", [None, 0, 6, "3", 2.5, True])
def test_an_item_without_a_score_is_an_error(cache, table, lookup, risk):
    cache.away = True
    table.add(user_pk("a"), LATEST_SK, armRisk=risk)
    with pytest.raises(UnavailableError):
        asyncio.run(lookup.get("a"))


def test_both_away_or_no_fallback_is_an_error(cache, table, lookup, clock):
    cache.away = table.down = True
    with pytest.raises(UnavailableError, match="cache and the table"):
        asyncio.run(lookup.get("a"))
    assert all(isinstance(one, UnavailableError) for one in asyncio.run(lookup.outcomes(["a", "b"])))
    with pytest.raises(UnavailableError, match="arm_fallback"):
        asyncio.run(ArmLookup(cache, None, clock).get("a"))


def test_a_cache_that_is_away_is_not_asked_again_and_again(cache, table, lookup, clock):
    async def ask():
        cache.away = True
        for _ in range(100):
            await lookup.get("a")
        assert cache.asked == 5
        clock.now += 0.3
        for _ in range(100):
            await lookup.get("a")
        assert cache.asked == 6  # one found out that it is still away
        cache.away = False
        clock.now += 2.0
        cache.gate = asyncio.Event()
        probe = asyncio.create_task(lookup.get("a"))
        await asyncio.sleep(0)
        for _ in range(100):
            await lookup.get("a")  # nobody else waits for the outcome
        assert cache.asked == 7
        cache.gate.set()
        await probe
        for _ in range(100):
            await lookup.get("a")
        assert cache.asked == 107

    asyncio.run(ask())


def test_a_probe_whose_asker_goes_away_ends(cache, lookup, clock):
    async def ask():
        cache.away = True
        for _ in range(5):
            await lookup.get("a")
        cache.away, cache.gate = False, asyncio.Event()
        clock.now += 1.0
        probe = asyncio.create_task(lookup.get("a"))
        await asyncio.sleep(0)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        cache.gate = None
        clock.now += 5.0
        cache.entries["user:a"] = GOOD
        assert not (await lookup.get("a")).stale

    asyncio.run(ask())


def test_an_address_is_needed():
    with pytest.raises(UsageError, match="--cache"):
        ArmLookup.of(None, None, deadline_seconds=1, table=None)
    with pytest.raises(UsageError, match="--cache"):
        ArmLookup.of("ftp://x", None, deadline_seconds=1, table=None)


def test_what_is_shown():
    assert shown(None, detail=False) == {"armScore": None}
    assert shown(ArmScore(3), detail=False) == {"armScore": 3}
    assert shown(ArmScore(3, stale=True), detail=False) == {"armScore": 3, "stale": True}
    assert shown(ArmScore(3, 2**60), detail=True)["ageSeconds"] == 0  # a clock that goes wrong
