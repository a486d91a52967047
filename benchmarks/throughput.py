"""Events a second of ``fan-identity score`` on the one-process DirectRunner, beside the plain loop and two workers.

The commands take turns, so that a machine that drifts drifts for all; medians are compared.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ..batch.simulate import SaleSettings, write_simulation

TARGET_RATIO = 0.8


@dataclass
class Contender:
    """One way to do the work.

    Attributes:
        name: in the table.
        command: without the input and the store.
        tail: after them.
        rates: events a second of each run, start-up apart.
    """

    name: str
    command: list[str]
    tail: list[str] = field(default_factory=list[str])
    rates: list[float] = field(default_factory=list[float])
    enqueue_seconds: list[float] = field(default_factory=list[float])
    score_seconds: list[float] = field(default_factory=list[float])


def run(rounds: int, fans: int, bots: int) -> None:
    """Runs each contender ``rounds`` times, in turns, and prints medians and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "activities.jsonl"
        simulation = write_simulation(SaleSettings(fans=fans, bots=bots), source)
        cli = [sys.executable, "-m", "fan_identity.pipelines.cli"]
        contenders = [
            Contender("plain loop, no Beam", [sys.executable, "-m", "fan_identity.benchmarks.plain_loop"]),
            Contender("DirectRunner, one process", [*cli, "score"], ["--json"]),
            Contender(
                "DirectRunner, two workers",
                [*cli, "score"],
                ["--json", "--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"],
            ),
        ]
        for number in range(rounds):
            for contender in contenders:
                _measure(contender, source, Path(folder) / f"{number}.db")
        print(f"\nThroughput: {simulation.lines:,} activities, {rounds} alternating rounds, medians, start-up apart")
        print(f"{'':28}{'events/s':>10}{'min':>9}{'max':>9}{'enqueue s':>11}{'score s':>9}{'ratio':>8}")
        peer = statistics.median(contenders[0].rates)
        for contender in contenders:
            rate = statistics.median(contender.rates)
            print(
                f"{contender.name:28}{rate:>10,.0f}{min(contender.rates):>9,.0f}{max(contender.rates):>9,.0f}"
                f"{statistics.median(contender.enqueue_seconds):>11.1f}"
                f"{statistics.median(contender.score_seconds):>9.1f}{rate / peer:>8.2f}"
            )
        ratio = statistics.median(contenders[1].rates) / peer
        print(f"target: one process at least {TARGET_RATIO} of the plain loop: {_verdict(ratio >= TARGET_RATIO)}")


def _measure(contender: Contender, source: Path, store: Path) -> None:
    command = [*contender.command, str(source)]
    address = f"sqlite:///{store}"
    command += ["--store", address] if "score" in command else [address]
    finished = subprocess.run([*command, *contender.tail], capture_output=True, text=True, check=False)
    if finished.returncode not in (0, 1):  # 1: with dead letters, which the simulation plants
        raise SystemExit(f"{contender.name} failed: {finished.stderr}")
    result = json.loads(finished.stdout)
    if result["unaccounted"]:
        raise SystemExit(f"{contender.name} lost records: {result}")
    contender.rates.append(result["read"] / result["seconds"])
    contender.enqueue_seconds.append(result["enqueueSeconds"])
    contender.score_seconds.append(result["scoreSeconds"])
    for suffix in ("", "-wal", "-shm", ".lock"):
        Path(f"{store}{suffix}").unlink(missing_ok=True)


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"
