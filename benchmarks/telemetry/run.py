"""``make bench-telemetry``: throughput with telemetry on and off, beside the program with its hooks taken out.

On is all of it: Prometheus scraped and OTLP exported every five seconds, and traces at the share sampled where nobody
says otherwise, one in a hundred. The arms take turns, each run in a process of its own.
"""

import argparse
import json
import platform
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

from ...batch.simulate import SaleSettings, write_simulation
from ..run import machine
from ..serving.load import as_fast_as_possible
from ..serving.systems import Issuer, cpu_seconds, fan, free_port, redis_with_fans, running
from .arms import Rates, command, environment, order

PARTS = ("score", "arm")
_CALLERS = 1_000
_FANS = 10_000


def main() -> None:
    """Runs the parts named, or all; ends with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all where none")
    parser.add_argument("--rounds", type=int, default=12, help="rounds of the three arms; six balance their order")
    parser.add_argument("--fans", type=int, default=20_000, help="fans in the simulated sale")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load on the ARM endpoint")
    parser.add_argument("--connections", type=int, default=64, help="of that load")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    print(f"{machine()}; Python {platform.python_version()}, opentelemetry-sdk {version('opentelemetry-sdk')}")
    met = True
    if "score" in parts:
        met = score(arguments.rounds, arguments.fans) and met
    if "arm" in parts:
        met = arm(arguments.rounds, arguments.seconds, arguments.connections) and met
    raise SystemExit(0 if met else 1)


def score(rounds: int, fans: int) -> bool:
    """``fan-identity score`` over a simulated sale: activities to the queue, then queue to score to table and cache."""
    enqueued = Rates("Activities to the queue (fan-identity score, first pipeline)", "records/s")
    scored = Rates("Queue to score to table and cache (second pipeline)", "scores/s")
    exports = scrapes = 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "activities.jsonl"
        simulation = write_simulation(SaleSettings(fans=fans, bots=max(fans // 20, 1)), source)
        for number in range(rounds):
            for one in order(number):
                store = Path(folder) / f"{number}.db"
                with environment(one) as (own, heard):
                    told = _told([*command(one), "score", str(source), "--store", f"sqlite:///{store}", "--json"], own)
                enqueued.rates[one].append(told["read"] / told["enqueueSeconds"])
                scored.rates[one].append(told["scored"] / told["scoreSeconds"])
                exports, scrapes = exports + heard.exports, scrapes + heard.scrapes
                for left in Path(folder).glob(f"{store.name}*"):
                    left.unlink()
    print(f"\n{simulation.lines:,} activities, {rounds} rounds; while on: {exports} exports, {scrapes} scrapes")
    return all([enqueued.show(), scored.show()])


def _told(line: list[str], own: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(line, env=own, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: with dead letters, which the simulation plants
        raise SystemExit(f"{line[2]} failed: {done.stderr}")
    return json.loads(done.stdout)


def arm(rounds: int, seconds: float, connections: int) -> bool:
    """``GET /arm/{globalUserId}`` with RS256 tokens over Redis, by wrk, on one process."""
    rates = Rates("ARM lookups (fan-identity serve, one process)", "requests/s")
    per_core = Rates("ARM lookups a second of the server's CPU", "requests/s")
    exports = scrapes = errors = 0
    with tempfile.TemporaryDirectory() as folder, redis_with_fans(_FANS) as redis_port:
        issuer = Issuer(Path(folder))
        requests = [(f"/arm/{fan(number)}", issuer.token(fan(number))) for number in range(_CALLERS)]
        for number in range(rounds):
            for one in order(number):
                port = free_port()
                line = [*command(one), "serve", "--port", str(port), "--cache", f"redis://127.0.0.1:{redis_port}/0"]
                line += ["--store", f"sqlite:///{folder}/fans.db"]
                with environment(one) as (own, heard), running(*line, port=port, settings=own | issuer.settings) as pid:
                    as_fast_as_possible(port, requests, connections=connections, seconds=1)  # each token is seen once
                    began = cpu_seconds(pid)
                    asked = as_fast_as_possible(port, requests, connections=connections, seconds=seconds)
                    used = cpu_seconds(pid) - began
                rates.rates[one].append(asked.rate)
                per_core.rates[one].append(asked.rate * seconds / used)
                errors += asked.errors
                exports, scrapes = exports + heard.exports, scrapes + heard.scrapes
    print(
        f"\n{connections} connections, {rounds} rounds of {seconds:.0f} s, load: wrk; {errors} errors; while on: ",
        end="",
    )
    print(f"{exports} exports, {scrapes} scrapes")
    return all([rates.show(), per_core.show(), not errors])


if __name__ == "__main__":
    main()
