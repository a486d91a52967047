import asyncio

import pytest

from fan_identity.io.errors import UnavailableError
from fan_identity.serving.cached_lookup import EVENT_DETAILS_SECONDS, CachedLookup

from .fakes import MemoryLookup


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def upstream():
    return MemoryLookup("event_details", find=lambda asked: {"eventId": asked["eventId"], "name": "n"})


def test_a_hundred_callers_at_once_are_one_question(upstream):
    upstream.seconds = 0.02
    cached = CachedLookup(upstream)

    async def run():
        return await asyncio.gather(*(cached.fetch({"eventId": "e"}) for _ in range(100)))

    assert asyncio.run(run()) == [{"eventId": "e", "name": "n"}] * 100
    assert upstream.calls == 1


def test_each_event_is_a_question_of_its_own(upstream):
    cached = CachedLookup(upstream)

    async def run():
        return [await cached.fetch({"eventId": name}) for name in ("e", "f", "e")]

    assert [one["eventId"] for one in asyncio.run(run())] == ["e", "f", "e"]
    assert upstream.calls == 2


def test_an_answer_is_kept_for_five_minutes(upstream):
    clock = Clock()
    cached = CachedLookup(upstream, clock=clock)
    asyncio.run(cached.fetch({"eventId": "e"}))
    clock.now = EVENT_DETAILS_SECONDS - 0.001
    asyncio.run(cached.fetch({"eventId": "e"}))
    assert (EVENT_DETAILS_SECONDS, upstream.calls) == (300.0, 1)
    clock.now = EVENT_DETAILS_SECONDS
    asyncio.run(cached.fetch({"eventId": "e"}))
    assert upstream.calls == 2


def test_that_there_is_none_is_kept_too(upstream):
    upstream.find = lambda _: None
    cached = CachedLookup(upstream)
    assert asyncio.run(cached.fetch({"eventId": "e"})) is None
    assert asyncio.run(cached.fetch({"eventId": "e"})) is None
    assert upstream.calls == 1


def test_an_outage_is_told_to_all_who_wait_and_not_kept(upstream):
    upstream.down, upstream.seconds = True, 0.01
    cached = CachedLookup(upstream)

    async def run():
        return await asyncio.gather(*(cached.fetch({"eventId": "e"}) for _ in range(5)), return_exceptions=True)

    assert [type(one) for one in asyncio.run(run())] == [UnavailableError] * 5
    assert upstream.calls == 1
    upstream.down = False
    assert asyncio.run(cached.fetch({"eventId": "e"}))["name"] == "n"


def test_during_an_outage_what_is_known_is_answered(upstream):
    cached = CachedLookup(upstream)
    asyncio.run(cached.fetch({"eventId": "e"}))
    upstream.down = True
    assert asyncio.run(cached.fetch({"eventId": "e"}))["name"] == "n"


def test_a_caller_that_goes_away_does_not_end_the_question_of_others(upstream):
    upstream.seconds = 0.02
    cached = CachedLookup(upstream)

    async def run():
        first = asyncio.create_task(cached.fetch({"eventId": "e"}))
        second = asyncio.create_task(cached.fetch({"eventId": "e"}))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert asyncio.run(run())["name"] == "n"
    assert upstream.calls == 1
