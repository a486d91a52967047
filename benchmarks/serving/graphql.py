"""GraphQL: what the engine costs, waves instead of one after the other, other libraries on the same query, bombs."""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from ...domain.access import READ_ANY_SCOPE, CallerKind, Identity
from ...serving.context import Request
from ...serving.data_sources import ArmScore, DataSources
from ...serving.graphql.engine import Engine
from ...serving.graphql.executable import build_schema
from ...serving.resolvers import ACCOUNT_FANSCORE
from . import graphql_peers
from .load import at_rate
from .systems import Issuer, fan, free_port, python, redis_with_fans, running

QUERY: Final = """query ($user: ID!, $event: ID) { api { accountFanscore(globalUserId: $user, eventId: $event) {
  score rawScore boosts { arm event model } } } }"""
ARGS: Final = {"globalUserId": "user123", "eventId": "evt456"}
_SERVICE: Final = Identity(CallerKind.SERVICE, "bench", scopes=frozenset({READ_ANY_SCOPE}))
_BODY: Final = msgspec.json.encode({"query": QUERY, "variables": {"user": "user123", "event": "evt456"}})
_DELAY_SECONDS: Final = 0.005
_MOST_ENGINE_MS: Final = 0.3
_MOST_WAVES_MS: Final = 25.0
_MOST_RISE: Final = 1.2
_HEALTHY_RATE: Final = 500.0
_BOMB_RATE: Final = 100.0


class _Source:
    """Any data source: answers after a delay with what makes the reference's example."""

    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def get(self, pk: str, sk: str = "") -> Any:
        if self._delay:
            await asyncio.sleep(self._delay)
        if not sk:
            return ArmScore(1)
        return {"accountScore": 75, "bonScore": 0.02, "discoEventId": "d", "demandLevel": "high", "version": "v"}

    async def query(self, pk: str, sk_prefix: str = "", **_: Any) -> list[Any]:
        return [await self.get(pk, sk_prefix)]


def _sources(delay: float) -> DataSources:
    one: Any = _Source(delay)
    return DataSources(one, one, one, one, one, one)


def _request(sources: DataSources) -> Request:
    return Request(sources, _SERVICE)


async def _each_ms(answer: Callable[[], Awaitable[object]], times: int) -> list[float]:
    took: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await answer()
        took.append((time.perf_counter() - began) * 1_000)
    return took


async def _alternating(
    ways: Mapping[str, Callable[[], Awaitable[object]]], rounds: int, times: int
) -> dict[str, float]:
    """Median milliseconds of each way, their rounds taking turns."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, answer in ways.items():
            measured = await _each_ms(answer, times)
            if number:  # the first round warms up
                took[name].append(statistics.median(measured))
    return {name: statistics.median(values) for name, values in took.items()}


def run(rounds: int, seconds: float) -> bool:
    """Runs all parts and prints them.

    Args:
        rounds: of each contender.
        seconds: of each load of the bombs.

    Returns:
        Whether the targets are met.
    """
    print(f"\nGraphQL (graphql-core {version('graphql-core')}): accountFanscore, the reference's query")
    good = asyncio.run(_engine_and_waves(rounds))
    asyncio.run(_libraries(rounds))
    return _bombs(rounds, seconds) and good


async def _engine_and_waves(rounds: int) -> bool:
    engine = Engine(build_schema())
    at_once, delayed = _sources(0.0), _sources(_DELAY_SECONDS)

    async def checked() -> None:
        _, answer = await engine.answer(_BODY, lambda: _request(at_once))
        assert answer["data"]["api"]["accountFanscore"]["score"] == 87, answer  # noqa: S101, PLR2004

    await checked()
    medians = await _alternating(
        {
            "engine": lambda: engine.answer(_BODY, lambda: _request(at_once)),
            "functions": lambda: ACCOUNT_FANSCORE.run(ARGS, _request(at_once)),
        },
        rounds,
        500,
    )
    added = medians["engine"] - medians["functions"]
    print(f"  the eight functions alone       {medians['functions']:7.3f} ms")
    print(f"  through the engine              {medians['engine']:7.3f} ms")
    print(f"  the engine adds                 {added:7.3f} ms  {_verdict(added <= _MOST_ENGINE_MS, _MOST_ENGINE_MS)}")
    waves = await _alternating(
        {
            "side by side": lambda: engine.answer(_BODY, lambda: _request(delayed)),
            "one by one": lambda: ACCOUNT_FANSCORE.run(ARGS, _request(delayed), side_by_side=False),
        },
        rounds,
        40,
    )
    p50 = waves["side by side"]
    print(f"  every source delayed by {_DELAY_SECONDS * 1_000:.0f} ms: p50")
    print(f"    one after the other           {waves['one by one']:7.2f} ms")
    print(f"    side by side                  {p50:7.2f} ms  {_verdict(p50 <= _MOST_WAVES_MS, _MOST_WAVES_MS)}")
    return added <= _MOST_ENGINE_MS and p50 <= _MOST_WAVES_MS


async def _libraries(rounds: int) -> None:
    medians = await _alternating(graphql_peers.ways(), rounds, 300)
    print("  eight fields that answer at once, by library:")
    fastest = min(medians.values())
    for name, took in sorted(medians.items(), key=lambda pair: pair[1]):
        print(f"    {name:<52} {took:7.3f} ms  {1_000 / took:8,.0f}/s  {took / fastest:5.2f}")


def _verdict(good: bool, limit: float) -> str:
    return f"({'met' if good else 'MISSED'}: at most {limit:g})"


_BOMBS: Final = (
    "{ a " * 11 + "} " * 11,
    "{" + " ".join(f'a{n}: getArmScore(globalUserId: "u")' for n in range(16)) + "}",
    "{" + "a " * 2_100 + "}",
    "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
    "{ __typename" + " @skip(if: false)" * 300 + "}",
    "{ ...F0 } "
    + " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(14))
    + " fragment F14 on Query { __typename }",
    "{" + " ".join(f"f{n}" for n in range(200)) + "}",
)


def _bombs(rounds: int, seconds: float) -> bool:
    """Healthy lookups at a rate, with and without bombs beside them."""
    print(f"  {_HEALTHY_RATE:.0f} healthy lookups/s, alone and with {_BOMB_RATE:.0f} bombs/s beside them")
    with tempfile.TemporaryDirectory() as folder, redis_with_fans(1_000) as redis_port:
        issuer = Issuer(Path(folder))
        requests = [(f"/arm/{fan(number)}", issuer.token(fan(number))) for number in range(200)]
        port = free_port()
        command = (
            str(Path(sys.executable).with_name("fan-identity")),
            *("serve", "--port", str(port), "--cache", f"redis://127.0.0.1:{redis_port}/0"),
            *("--store", f"sqlite:///{folder}/fans.db"),
        )
        alone: list[float] = []
        beside: list[float] = []
        refused = 0
        with running(*command, port=port, settings=issuer.settings):
            for number in range(2 * rounds + 1):
                if number % 2:
                    bombing = subprocess.Popen(
                        [*python("graphql"), str(port), str(seconds + 2), issuer.token("bomber")],
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                    assert bombing.stdout is not None  # noqa: S101
                    bombing.stdout.readline()  # it has started, and takes no more of the machine than its bombs do
                    beside.append(_p99(port, requests, seconds))
                    refused += int(bombing.communicate()[0])
                else:
                    alone.append(_p99(port, requests, seconds))
    before, after = statistics.median(alone), statistics.median(beside)
    good = after <= before * _MOST_RISE
    print(
        f"    p99 alone {before:.2f} ms, beside bombs {after:.2f} ms: "
        f"{after / before:.2f}  {_verdict(good, _MOST_RISE)}"
    )
    print(f"    bombs refused: {refused:,}")
    return good


def _p99(port: int, requests: Sequence[tuple[str, str]], seconds: float) -> float:
    asked = at_rate(port, requests, connections=32, seconds=seconds, rate=_HEALTHY_RATE)
    if asked.errors:
        raise SystemExit(f"{asked.errors} healthy lookups failed")
    return asked.p99_ms


async def _bomb(port: int, seconds: float, token: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    print("started", flush=True)
    refused = 0
    began = time.perf_counter()
    for number in range(int(seconds * _BOMB_RATE)):
        body = msgspec.json.encode({"query": _BOMBS[number % len(_BOMBS)]})
        head = (
            f"POST /graphql HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        refused += answer.startswith(b"HTTP/1.1 400")
        if (early := began + (number + 1) / _BOMB_RATE - time.perf_counter()) > 0:
            await asyncio.sleep(early)
    writer.close()
    return refused


if __name__ == "__main__":
    print(asyncio.run(_bomb(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])))
