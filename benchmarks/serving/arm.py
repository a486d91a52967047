"""The ARM endpoint with authorisation beside a bare one: requests a second, requests a second and core, latency."""

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from ..streams.rounds import verdict
from .load import Asked, Requests, as_fast_as_possible, at_rate
from .systems import Issuer, cpu_seconds, fan, free_port, python, redis_with_fans, running

_FANS = 10_000
_CALLERS = 1_000
_MOST_P99_MS = 5.0
_LEAST_RATIO = 2.0


@dataclass
class _Server:
    name: str
    command: Callable[[int], Sequence[str]]
    settings: dict[str, str]
    fast: list[Asked] = field(default_factory=list[Asked])
    per_core: list[float] = field(default_factory=list[float])
    half: list[Asked] = field(default_factory=list[Asked])

    def start(self, port: int) -> AbstractContextManager[int]:
        return running(*self.command(port), port=port, settings=self.settings)

    @property
    def rate(self) -> float:
        return statistics.median(asked.rate for asked in self.fast)

    def p99(self, asked: list[Asked]) -> float:
        return statistics.median(one.p99_ms for one in asked)


def run(rounds: int, seconds: float, connections: int) -> bool:
    """Runs alternating rounds and prints the medians.

    Args:
        rounds: of each server.
        seconds: of each load.
        connections: of the load.

    Returns:
        Whether the targets are met.
    """
    print(
        f"\nARM endpoint: {_CALLERS:,} fans ask for their own score, {connections} connections, {rounds} rounds of "
        f"{seconds:.0f} s; load: wrk, at half load vegeta"
    )
    with tempfile.TemporaryDirectory() as folder, redis_with_fans(_FANS) as redis_port:
        issuer = Issuer(Path(folder))
        requests = [(f"/arm/{fan(number)}", issuer.token(fan(number))) for number in range(_CALLERS)]
        bare = _Server(
            "bare: Starlette, pool, no authorisation", lambda port: python("peer_bare", redis_port, port), {}
        )
        ours = _Server(
            "ours: RS256 tokens, owner only",
            lambda port: (
                str(Path(sys.executable).with_name("fan-identity")),
                *("serve", "--port", str(port), "--cache", f"redis://127.0.0.1:{redis_port}/0"),
                *("--store", f"sqlite:///{folder}/fans.db"),
            ),
            issuer.settings,
        )
        for number in range(rounds):
            for server in (bare, ours) if number % 2 else (ours, bare):
                _round(server, requests, seconds, connections)
        for server in (bare, ours):
            for _ in range(rounds):
                _half_round(server, requests, seconds, connections, server.rate / 2)
    _print(bare, ours)
    errors = sum(asked.errors for server in (bare, ours) for asked in (*server.fast, *server.half))
    ratio = ours.rate / bare.rate
    good = [
        ("requests/s at least twice the bare endpoint's", ratio >= _LEAST_RATIO, f"{ratio:.2f}"),
        ("lower p99 than the bare endpoint's", ours.p99(ours.fast) < bare.p99(bare.fast), ""),
        (
            f"p99 at half load ({ours.rate / 2:,.0f}/s) at most {_MOST_P99_MS:.0f} ms",
            ours.p99(ours.half) <= _MOST_P99_MS,
            "",
        ),
        ("no errors", errors == 0, f"{errors}"),
    ]
    for target, met, measured in good:
        print(f"  {target}: {measured} {verdict(met)}")
    return all(met for _, met, _ in good)


def _round(server: _Server, requests: Requests, seconds: float, connections: int) -> None:
    port = free_port()
    with server.start(port) as pid:
        as_fast_as_possible(port, requests, connections=connections, seconds=1)  # every token is seen once
        began = cpu_seconds(pid)
        asked = as_fast_as_possible(port, requests, connections=connections, seconds=seconds)
        server.fast.append(asked)
        server.per_core.append(asked.rate * seconds / (cpu_seconds(pid) - began))


def _half_round(server: _Server, requests: Requests, seconds: float, connections: int, rate: float) -> None:
    port = free_port()
    with server.start(port):
        as_fast_as_possible(port, requests, connections=connections, seconds=1)
        server.half.append(at_rate(port, requests, connections=connections, seconds=seconds, rate=rate))


def _print(*servers: _Server) -> None:
    print(f"{'':42}{'requests/s':>12}{'min':>8}{'max':>8}{'/s core':>9}{'p50 ms':>8}{'p99 ms':>8}{'half p99 ms':>13}")
    for one in servers:
        rates = [asked.rate for asked in one.fast]
        print(
            f"{one.name:42}{one.rate:>12,.0f}{min(rates):>8,.0f}{max(rates):>8,.0f}"
            f"{statistics.median(one.per_core):>9,.0f}"
            f"{statistics.median(asked.p50_ms for asked in one.fast):>8.2f}{one.p99(one.fast):>8.2f}"
            f"{one.p99(one.half):>13.2f}"
        )
