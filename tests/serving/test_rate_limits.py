"""Rate limits in one process: the arithmetic, and what callers see. Redis's are in tests/services."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.access import NOBODY, CallerKind, Identity
from fan_identity.io.addresses import parse_address
from fan_identity.io.errors import UsageError
from fan_identity.serving.api_keys import ApiKeys, create_key, revoke_key
from fan_identity.serving.rate_limits import (
    PARTS,
    Bucket,
    KeyLimits,
    LocalRateLimiter,
    RateLimitedError,
    RedisRateLimiter,
    open_rate_limiter,
    take_from,
)

MINUTE = 60_000_000  # microseconds

limits = st.integers(1, 1_000_000)
costs = st.integers(1, 2_000_000)
asks = st.lists(st.tuples(st.integers(0, 2 * MINUTE), st.integers(1, 100)), max_size=60)


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def taken(limiter, name="key", per_minute=60, cost=1):
    return asyncio.run(limiter.take(name, per_minute, cost))


def test_a_full_bucket_holds_a_minutes_worth_and_refills_evenly():
    clock = Clock()
    limiter = LocalRateLimiter(clock)
    assert [taken(limiter).remaining for _ in range(60)] == list(range(59, -1, -1))
    assert taken(limiter) == (False, 0, 1)
    clock.now += MINUTE // 60 - 1
    assert taken(limiter) == (False, 0, 1)
    clock.now += 1
    assert taken(limiter) == (True, 0, 0)
    clock.now += MINUTE
    assert taken(limiter).remaining == 59


def test_by_cost():
    clock = Clock()
    limiter = LocalRateLimiter(clock)
    assert taken(limiter, cost=50) == (True, 10, 0)
    assert taken(limiter, cost=25) == (False, 10, 15), "in 15 s there will be 15 more"
    assert taken(limiter, cost=10) == (True, 0, 0), "what was refused took nothing"


def test_a_cost_beyond_the_limit_takes_a_full_bucket():
    limiter = LocalRateLimiter(Clock())
    assert taken(limiter, cost=1_000) == (True, 0, 0)
    assert taken(limiter, cost=1_000) == (False, 0, 60)


@pytest.mark.parametrize("cost", [0, -1])
def test_a_cost_of_nothing_is_a_defect(cost):
    with pytest.raises(ValueError, match="cost"):
        taken(LocalRateLimiter(), cost=cost)


def test_keys_do_not_share():
    limiter = LocalRateLimiter(Clock())
    assert not taken(limiter, "a", 1).remaining
    assert not taken(limiter, "a", 1).allowed
    assert taken(limiter, "b", 1).allowed


@given(per_minute=limits, times=asks)
def test_never_more_than_a_bucket_and_what_flowed_in(per_minute, times):
    """In any stretch of time, over whatever requests: at most the bucket, and the rate times the time."""
    bucket, now, let_in = Bucket(), 0, []
    for pause, cost in times:
        now += pause
        bucket, answer = take_from(bucket, now, per_minute, cost)
        if answer.allowed:
            let_in.append((now, min(cost, per_minute)))
    for first, (start, _) in enumerate(let_in):
        total = 0
        for end, cost in let_in[first:]:
            total += cost
            assert total * PARTS <= per_minute * PARTS + (end - start) * per_minute


@given(per_minute=limits, cost=costs, used=st.integers(0, 60_000_000_000_000))
def test_retry_after_is_when_it_is_allowed_and_not_a_second_earlier(per_minute, cost, used):
    bucket = Bucket(min(used, per_minute * PARTS), 0)
    _, answer = take_from(bucket, 0, per_minute, cost)
    if answer.allowed:
        assert answer.retry_after == 0
    else:
        assert 1 <= answer.retry_after <= 60
        assert take_from(bucket, answer.retry_after * 1_000_000, per_minute, cost)[1].allowed
        assert not take_from(bucket, (answer.retry_after - 1) * 1_000_000, per_minute, cost)[1].allowed


@given(per_minute=limits, used=st.integers(0, 60_000_000_000_000))
def test_remaining_is_what_can_be_taken_at_once(per_minute, used):
    bucket = Bucket(min(used, (per_minute - 1) * PARTS), 0)
    after, answer = take_from(bucket, 0, per_minute, 1)
    assert answer.allowed
    if answer.remaining:
        assert take_from(after, 0, per_minute, answer.remaining)[1].allowed
    if answer.remaining < per_minute:
        assert not take_from(after, 0, per_minute, answer.remaining + 1)[1].allowed


@given(per_minute=limits, back=st.integers(1, 10**15))
def test_a_clock_set_back_gives_nothing_away_and_locks_nobody_out(per_minute, back):
    now = 10**15
    fresh, first = take_from(Bucket(), now, per_minute, 1)
    assert take_from(fresh, now - back, per_minute, 1)[1].remaining == max(0, first.remaining - 1)
    bucket, _ = take_from(Bucket(), now, per_minute, per_minute)
    bucket, refused = take_from(bucket, now - back, per_minute, 1)
    assert not refused.allowed
    assert take_from(bucket, now - back + MINUTE, per_minute, per_minute)[1].allowed


@given(limits, limits)
def test_a_limit_that_was_lowered_holds_at_once(before, after):
    bucket, _ = take_from(Bucket(), 0, before, before)
    _, answer = take_from(bucket, 0, after, 1)
    assert answer.retry_after <= math.ceil(60)
    assert answer.allowed is (after > before)


def test_numbers_stay_exact_in_luas_doubles():
    assert 1_000_000 * PARTS < 2**53


# What callers see


@pytest.fixture
def key_limits(tmp_path):
    file = tmp_path / "keys.jsonl"
    create_key(file, "box-office", [], 2)
    return KeyLimits(ApiKeys(file), LocalRateLimiter(Clock()))


def test_a_used_up_limit_is_429_with_a_time(key_limits):
    caller = Identity(CallerKind.API_KEY, "box-office")
    assert asyncio.run(key_limits.admit(caller)).remaining == 1
    assert asyncio.run(key_limits.admit(caller)).remaining == 0
    with pytest.raises(RateLimitedError) as refused:
        asyncio.run(key_limits.admit(caller, 1))
    assert (refused.value.error_type, refused.value.code, refused.value.retry_after) == ("429", "RATE_LIMITED", 30)
    assert "box-office" not in refused.value.message


def test_other_callers_have_no_limit(key_limits):
    for caller in (NOBODY, Identity(CallerKind.USER, "box-office"), Identity(CallerKind.SERVICE, "box-office")):
        for _ in range(5):
            assert asyncio.run(key_limits.admit(caller)) is None


def test_a_key_revoked_while_its_request_is_answered(tmp_path):
    file = tmp_path / "keys.jsonl"
    key = create_key(file, "a", [], 2)
    clock = Clock()
    keys = ApiKeys(file, clock)
    caller = keys.find(key).identity
    revoke_key(file, "a")
    clock.now += 1
    assert keys.find(key) is None
    with pytest.raises(RateLimitedError):
        asyncio.run(KeyLimits(keys, LocalRateLimiter(Clock())).admit(caller))


# By the cache's address


def test_the_limiter_goes_with_the_caches_address():
    assert isinstance(open_rate_limiter(parse_address("sqlite:///fans.db", "cache"), "cache"), LocalRateLimiter)
    for address in ("redis://127.0.0.1/0", "rediss://127.0.0.1", "redis-cluster://127.0.0.1"):
        limiter = open_rate_limiter(parse_address(address, "cache"), "cache")
        assert isinstance(limiter, RedisRateLimiter)
        asyncio.run(limiter.close())
    with pytest.raises(UsageError, match="--cache"):
        open_rate_limiter(parse_address("redis://", "cache"), "cache")
