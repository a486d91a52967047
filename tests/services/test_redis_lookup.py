"""Reads of Redis on an event loop: one connection, any ids, and a server that is killed, frozen or locked."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fan_identity.domain.keys import arm_cache_key
from fan_identity.io.addresses import parse_address
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.redis_address import PASSWORD_VARIABLE
from fan_identity.io.redis_lookup import NO_TEXT, RedisLookup

SHARED_PORT = 16_390
PATIENCE = 30.0
SHORT = 0.1


def lookup_at(port: int, *, at: str = "", db: int = 0, seconds: float = PATIENCE) -> RedisLookup:
    return RedisLookup.of(parse_address(f"redis://{at}127.0.0.1:{port}/{db}", "cache"), "cache", seconds)


@pytest.fixture
def shared(server: Callable[[str], None]) -> redis.Redis:
    server("redis")
    return redis.Redis(port=SHARED_PORT)


@pytest.fixture
def key(shared: redis.Redis) -> Iterator[Callable[[str], str]]:
    """Keys of the test's own, which end with it."""
    prefix = uuid.uuid4().hex
    yield lambda name: f"user:{prefix}{name}"
    for found in shared.scan_iter(f"user:{prefix}*", count=1_000):
        shared.delete(found)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_values_of_any_number_of_lookups_at_once_go_to_their_askers(shared, key, run):
    numbers = range(2_000)
    shared.mset({key(str(number)): str(number) for number in numbers})

    async def ask() -> None:
        lookup = lookup_at(SHARED_PORT)
        one_by_one = await asyncio.gather(*(lookup.get(key(str(number))) for number in numbers))
        together = await lookup.get_many([key(str(number)) for number in numbers])
        assert one_by_one == together == [str(number).encode() for number in numbers]
        assert await lookup.get(key("nobody")) is None
        assert await lookup.get_many([]) == []
        await lookup.close()

    run(ask())


def test_one_connection_carries_them_all_and_a_batch_is_one_mget(private):
    server = private("redis")
    client = redis.Redis(port=server.port)
    client.mset({f"user:{number}": number for number in range(50)})
    client.config_resetstat()

    async def ask() -> None:
        lookup = lookup_at(server.port)
        await asyncio.gather(*(lookup.get(f"user:{number}") for number in range(50)))
        await lookup.get_many([f"user:{number}" for number in range(50)])
        await lookup.close()

    asyncio.run(ask())
    stats = client.info("commandstats")
    assert (stats["cmdstat_get"]["calls"], stats["cmdstat_mget"]["calls"]) == (50, 1)
    assert client.info("stats")["total_connections_received"] == 1  # since the reset: this client's is older


def test_a_key_of_another_type_is_no_unknown_fan(shared, key, run):
    shared.hset(key("hash"), "arm_risk", "5")
    shared.rpush(key("list"), "5")
    shared.set(key("text"), "x")

    async def ask() -> None:
        lookup = lookup_at(SHARED_PORT)
        names = ["hash", "text", "nobody", "list"]
        assert await lookup.get_many([key(name) for name in names]) == [NO_TEXT, b"x", None, NO_TEXT]
        assert [await lookup.get(key(name)) for name in names] == [NO_TEXT, b"x", None, NO_TEXT]
        await lookup.close()

    run(ask())


HOSTILE = [
    "a#b",
    "a:b",
    "a\r\nSET user:victim x\r\n",
    "$3\r\nGET\r\n",
    "a\0b",
    "\0",
    "caf\u00e9",  # composed and decomposed are two ids
    "cafe\u0301",
    "\U0001f600",
    "{tag}a",
    "*" * 2_000,
    " a",
    "a ",
]


def test_hostile_ids_reach_their_own_key_and_no_other(shared, key):
    async def ask() -> None:
        lookup = lookup_at(SHARED_PORT)
        names = [arm_cache_key(key(user)) for user in HOSTILE]
        assert len(set(names)) == len(HOSTILE)
        for number, name in enumerate(names):
            assert await lookup.get_many(names) == [b"%d" % one if one < number else None for one in range(len(names))]
            shared.set(name, number)
            assert await lookup.get(name) == b"%d" % number
        await lookup.close()

    try:
        asyncio.run(ask())
        assert shared.get("user:victim") is None
    finally:
        shared.delete(*(arm_cache_key(key(user)) for user in HOSTILE))


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_the_answer_is_what_another_client_reads(shared, key, names):
    keys = [key(name) for name in names]
    for number, name in enumerate(keys[::2]):
        shared.set(name, number)

    async def ask() -> tuple[list[bytes | None], list[bytes | None]]:
        lookup = lookup_at(SHARED_PORT)
        singly = list(await asyncio.gather(*map(lookup.get, keys)))
        together = await lookup.get_many(keys)
        await lookup.close()
        return singly, together

    expected = shared.mget(keys)
    shared.delete(*keys)
    for name, value in zip(keys, expected, strict=True):
        if value is not None:
            shared.set(name, value)
    assert asyncio.run(ask()) == (expected, expected)
    shared.delete(*keys)


def test_a_killed_server_is_an_error_at_once_and_found_again(private, run, until):
    server = private("redis")
    redis.Redis(port=server.port).set("user:a", "1")

    async def ask() -> None:
        lookup = lookup_at(server.port)
        assert await lookup.get("user:a") == b"1"
        server.kill9()
        for _ in range(3):
            with pytest.raises(BackendUnavailableError, match="is out of reach") as raised:
                await lookup.get("user:secret")
            assert "secret" not in str(raised.value)
        server.start()
        assert await lookup.get("user:a") is None
        await lookup.close()

    run(ask())


def test_a_connection_that_ended_meanwhile_is_no_error(private, run):
    """As a Lambda's has after a pause: the server gave it up, and the lookup notices when it asks."""
    server = private("redis")
    client = redis.Redis(port=server.port)
    client.set("user:a", "1")

    async def ask() -> None:
        lookup = lookup_at(server.port)
        assert await lookup.get("user:a") == b"1"
        client.client_kill_filter(_type="normal", skipme=True)
        # Not one turn of the loop passes in between.
        assert await lookup.get("user:a") == b"1"
        await lookup.close()

    run(ask())


def test_answers_of_a_frozen_server_that_come_late_go_to_nobody_else(private, run):
    server = private("redis")
    client = redis.Redis(port=server.port)
    client.mset({f"user:{number}": number for number in range(100)})
    pid = client.info("server")["process_id"]

    async def ask() -> None:
        lookup = lookup_at(server.port, seconds=SHORT)
        assert await lookup.get("user:0") == b"0"
        os.kill(pid, signal.SIGSTOP)
        late = await asyncio.gather(*(lookup.get(f"user:{number}") for number in range(50)), return_exceptions=True)
        assert {type(one) for one in late} == {BackendUnavailableError}
        assert "no answer in 100 ms" in str(late[0])
        os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE
        while True:
            found = await asyncio.gather(
                *(lookup.get(f"user:{number}") for number in range(99, -1, -1)), return_exceptions=True
            )
            wrong = [one for number, one in enumerate(reversed(found)) if one != b"%d" % number]
            assert all(isinstance(one, BackendUnavailableError) for one in wrong)
            if not wrong:
                break
            assert time.monotonic() < deadline
        await lookup.close()

    try:
        run(ask())
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_server_that_is_frozen_when_one_connects_is_an_error_in_time(private):
    server = private("redis")
    pid = redis.Redis(port=server.port).info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)

    async def ask() -> None:
        lookup = lookup_at(server.port, seconds=SHORT)
        for _ in range(2):
            with pytest.raises(BackendUnavailableError):
                await lookup.get("user:a")
        os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                assert await lookup.get("user:a") is None
                return
            except BackendUnavailableError:
                assert time.monotonic() < deadline

    try:
        asyncio.run(ask())
    finally:
        os.kill(pid, signal.SIGCONT)


def test_passwords_users_and_databases_are_those_of_the_address_or_the_environment(private, monkeypatch):
    server = private("redis")
    redis.Redis(port=server.port).config_set("requirepass", "s3cret")
    admin = redis.Redis(port=server.port, password="s3cret", db=3)
    admin.set("user:a", "1")
    admin.acl_setuser("reader", enabled=True, passwords=["+pa@ss"], keys="*", commands=["+get", "+mget", "+select"])
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)

    async def ask(at: str, db: int = 3) -> bytes | None:
        lookup = lookup_at(server.port, at=at, db=db)
        try:
            await lookup.check()
            assert await lookup.get_many(["user:a"]) == [await lookup.get("user:a")]
            return await lookup.get("user:a")
        finally:
            await lookup.close()

    assert asyncio.run(ask(":s3cret@")) == asyncio.run(ask("reader:pa%40ss@")) == b"1"
    assert asyncio.run(ask(":s3cret@", db=0)) is None
    for at in ("", ":wrong@", "reader:s3cret@"):
        with pytest.raises(UsageError, match=f"refuses the user or password .*{PASSWORD_VARIABLE}") as raised:
            asyncio.run(ask(at))
        assert not any(word in str(raised.value) for word in ("s3cret", "wrong", "pa@ss"))
    with pytest.raises(UsageError, match="no database"):
        asyncio.run(ask(":s3cret@", db=99))
    monkeypatch.setenv(PASSWORD_VARIABLE, "s3cret")
    assert asyncio.run(ask("")) == asyncio.run(ask(":wrong@")) == b"1"


def test_what_is_no_redis_is_an_error_and_not_an_answer():
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def ask() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        lookup = lookup_at(server.sockets[0].getsockname()[1])
        with pytest.raises(BackendUnavailableError):
            await lookup.get("user:a")
        await lookup.close()
        server.close()

    asyncio.run(ask())


def test_more_answers_than_questions_end_the_connection():
    """A connection that is out of step would answer one fan with another's score."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"+PONG\r\n")
        await reader.read(100)
        writer.write(b"$1\r\n1\r\n$1\r\n2\r\n")
        await reader.read(100)
        writer.close()

    async def ask() -> list[bytes | None]:
        connections = 0

        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await talk(reader, writer)

        server = await asyncio.start_server(counted, "127.0.0.1", 0)
        lookup = lookup_at(server.sockets[0].getsockname()[1])
        found = [await lookup.get("user:a"), await lookup.get("user:b")]
        await lookup.close()
        server.close()
        assert connections == 2
        return found

    assert asyncio.run(ask()) == [b"1", b"1"]
