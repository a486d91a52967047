"""Rate limits on a real Redis: atomic over many connections, by its clock; and a private one that is killed."""

import asyncio
import logging
import time
from collections.abc import Callable

import pytest
import redis
import redis.asyncio

from fan_identity.io.addresses import parse_address
from fan_identity.serving import rate_limits
from fan_identity.serving.rate_limits import LocalRateLimiter, RateLimiter, RedisRateLimiter, open_rate_limiter

SHARED_PORT = 16_390


@pytest.fixture
def shared(server: Callable[[str], None]) -> redis.Redis:
    server("redis")
    return redis.Redis(port=SHARED_PORT)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no outage."""
    monkeypatch.setattr(rate_limits, "DEADLINE_SECONDS", 20.0)


def limiter_at(port: int) -> RateLimiter:
    return open_rate_limiter(parse_address(f"redis://127.0.0.1:{port}/0", "cache"), "cache")


class NotHere(LocalRateLimiter):
    """Fails the test where Redis was not asked."""

    async def take(self, name: str, per_minute: int, cost: int = 1) -> rate_limits.Taken:
        raise AssertionError("Redis was not asked")


def only_redis(port: int) -> RedisRateLimiter:
    return RedisRateLimiter(redis.asyncio.Redis(port=port), NotHere())


def test_requests_at_once_over_many_processes_connections_share_one_bucket(shared, unique):
    """Four limiters as four processes have them, 400 requests at once, costs mixed: never more than the bucket."""
    name, per_minute = unique("key"), 300
    costs = [1 + number % 5 for number in range(400)]

    async def run() -> tuple[list[rate_limits.Taken], float]:
        limiters = [only_redis(SHARED_PORT) for _ in range(4)]
        began = time.monotonic()
        answers = await asyncio.gather(
            *(limiters[number % 4].take(name, per_minute, cost) for number, cost in enumerate(costs))
        )
        took = time.monotonic() - began
        for limiter in limiters:
            await limiter.close()
        return answers, took

    answers, took = asyncio.run(run())
    total = sum(cost for cost, answer in zip(costs, answers, strict=True) if answer.allowed)
    assert total <= per_minute + took * per_minute / 60
    assert total >= per_minute - 5, "and no less: the last may cost more than is left"
    assert all((answer.retry_after == 0) is answer.allowed for answer in answers)


def test_what_is_refused_takes_nothing_and_says_when(shared, unique):
    async def run() -> None:
        limiter = only_redis(SHARED_PORT)
        name = unique("key")
        assert await limiter.take(name, 60, 50) == (True, 10, 0)
        refused = await limiter.take(name, 60, 40)
        assert not refused.allowed
        assert 20 <= refused.retry_after <= 30
        assert (await limiter.take(name, 60, 10)).allowed
        assert await limiter.take(unique("other"), 1, 1_000) == (True, 0, 0)
        await limiter.close()

    asyncio.run(run())


def test_the_servers_clock_counts(shared, unique):
    """What is stored is Redis's time: set back in the store, the bucket refills."""
    name = unique("key")

    async def run() -> None:
        limiter = only_redis(SHARED_PORT)
        assert (await limiter.take(name, 60, 60)).remaining == 0
        used, at = map(int, shared.get(f"rate:{name}").split())
        seconds, microseconds = shared.time()
        assert 0 <= seconds * 1_000_000 + microseconds - at < 60_000_000
        assert used == 60 * rate_limits.PARTS
        shared.set(f"rate:{name}", f"{used} {at - 30_000_000}")
        assert (await limiter.take(name, 60, 30)).allowed
        shared.set(f"rate:{name}", f"{used} {at + 10**12}")  # a server whose clock was set back
        assert not (await limiter.take(name, 60, 1)).allowed
        await limiter.close()

    asyncio.run(run())


def test_keys_expire_once_their_bucket_is_full_again(shared, unique):
    name = unique("key")

    async def run() -> None:
        limiter = only_redis(SHARED_PORT)
        await limiter.take(name, 60, 30)
        await limiter.close()

    asyncio.run(run())
    assert 28_000 < shared.pttl(f"rate:{name}") <= 31_000


@pytest.mark.parametrize("junk", ["", "x", "1", "1 2 3", "-1 -1", "nan inf"])
def test_an_entry_that_is_none_of_ours_counts_as_none(shared, unique, junk):
    name = unique("key")
    shared.set(f"rate:{name}", junk)

    async def run() -> rate_limits.Taken:
        limiter = only_redis(SHARED_PORT)
        try:
            return await limiter.take(name, 10, 1)
        finally:
            await limiter.close()

    assert asyncio.run(run()) == (True, 9, 0)
    shared.delete(f"rate:{name}")
    shared.lpush(f"rate:{name}", junk)
    assert asyncio.run(run()) == (True, 9, 0)


def test_the_server_forgot_the_script(shared, unique):
    async def run() -> None:
        limiter = only_redis(SHARED_PORT)
        name = unique("key")
        await limiter.take(name, 10, 1)
        shared.script_flush()
        assert (await limiter.take(name, 10, 1)).remaining == 8
        await limiter.close()

    asyncio.run(run())


def test_redis_killed_each_process_limits_by_itself_and_redis_counts_again_once_it_is_back(
    private, monkeypatch, caplog
):
    """The stated behaviour: no request fails, none goes unlimited, one line in the log an outage."""
    monkeypatch.setattr(rate_limits, "_FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(rate_limits, "_LONGEST_PAUSE_SECONDS", 0.0)
    server = private("redis")

    async def run() -> None:
        limiter = limiter_at(server.port)
        assert (await limiter.take("key", 10, 4)).remaining == 6
        server.kill9()
        answers = [await limiter.take("key", 10, 1) for _ in range(25)]
        allowed = sum(answer.allowed for answer in answers)
        assert 10 <= allowed <= 12, "a full bucket of this process's own, and what flows in meanwhile"
        assert all(answer.retry_after for answer in answers if not answer.allowed)
        server.start()
        back = await limiter.take("key", 10, 3)
        assert back.allowed
        assert redis.Redis(port=server.port).exists("rate:key"), "Redis counts again"
        await limiter.close()

    with caplog.at_level(logging.WARNING, "fan_identity"):
        asyncio.run(run())
    told = [record.getMessage() for record in caplog.records if record.name == "fan_identity.rate_limits"]
    assert told == ["Redis gives no answer: rate limits are this process's own"]
    assert "key" not in caplog.text.replace("rate_limits", "")


def test_a_redis_that_hangs_costs_one_deadline_not_one_a_request(private, monkeypatch):
    monkeypatch.setattr(rate_limits, "DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(rate_limits, "_FIRST_PAUSE_SECONDS", 3_600.0)
    monkeypatch.setattr(rate_limits, "_LONGEST_PAUSE_SECONDS", 3_600.0)
    server = private("redis")
    asked: list[tuple[object, ...]] = []

    async def run() -> None:
        client = redis.asyncio.Redis(port=server.port)
        real = client.execute_command

        async def counted(*args: object) -> object:
            asked.append(args)
            return await real(*args)

        client.execute_command = counted  # pyright: ignore[reportAttributeAccessIssue]
        limiter = RedisRateLimiter(client, LocalRateLimiter())
        redis.Redis(port=server.port).execute_command("CLIENT", "PAUSE", 60_000, "ALL")
        answers = [await limiter.take("key", 10, 1) for _ in range(30)]
        assert sum(answer.allowed for answer in answers) >= 10
        assert not all(answer.allowed for answer in answers)
        await limiter.close()

    asyncio.run(run())
    assert len(asked) == 1
