"""Contenders that take turns, each round in a process of its own, and what came of it."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .systems import environment


class Stopwatch:
    """Time and CPU from the first record read to the last effect, in the process that does the work.

    What a process needs to start, import and connect is not counted: a worker runs for weeks.
    """

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None

    def start(self) -> None:
        """Notes the beginning; the first call counts."""
        if self._began is None:
            self._began = _now()

    def effect(self) -> None:
        """Notes an effect; the last call counts."""
        self._last = _now()

    def result(self, number: int) -> dict[str, float]:
        """``number`` of messages, and the ``seconds`` and ``cpuSeconds`` they took."""
        if self._began is None or self._last is None:
            raise ValueError("nothing was measured")
        return {
            "number": number,
            "seconds": self._last[0] - self._began[0],
            "cpuSeconds": self._last[1] - self._began[1],
        }


def _now() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in used)


@dataclass
class Contender:
    """One way to do the work.

    Attributes:
        name: in the table.
        module: of this package; its ``main`` prints a ``Stopwatch.result`` as JSON.
        arguments: for it, before those of the round.
        rates: messages a second of each round.
        cpu_ms: CPU milliseconds a message of each round.
    """

    name: str
    module: str
    arguments: list[str] = field(default_factory=list[str])
    rates: list[float] = field(default_factory=list[float])
    cpu_ms: list[float] = field(default_factory=list[float])

    def run(self, settings: Mapping[str, str], *arguments: str) -> int:
        """Runs one round.

        Args:
            settings: of fan-identity, in the process's environment.
            arguments: of the round.

        Returns:
            The number of messages it says it did.

        Raises:
            SystemExit: it failed.
        """
        command = [sys.executable, "-m", f"{__package__}.{self.module}", *self.arguments, *arguments]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(settings))
        if finished.returncode:
            raise SystemExit(f"{self.name} failed: {finished.stderr}")
        result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
        self.rates.append(result["number"] / result["seconds"])
        self.cpu_ms.append(1_000 * result["cpuSeconds"] / result["number"])
        return result["number"]

    @property
    def rate(self) -> float:
        """The median of messages a second."""
        return statistics.median(self.rates)

    @property
    def cpu(self) -> float:
        """The median of CPU milliseconds a message."""
        return statistics.median(self.cpu_ms)


def print_table(contenders: list[Contender], base: Contender) -> None:
    """Prints medians and their ratios to one of the contenders."""
    print(f"{'':46}{'messages/s':>12}{'min':>8}{'max':>8}{'ratio':>8}{'CPU ms/message':>16}{'ratio':>8}")
    for one in contenders:
        print(
            f"{one.name:46}{one.rate:>12,.0f}{min(one.rates):>8,.0f}{max(one.rates):>8,.0f}{one.rate / base.rate:>8.2f}"
            f"{one.cpu:>16.3f}{one.cpu / base.cpu:>8.2f}"
        )


def verdict(met: bool) -> str:
    """How a target is reported."""
    return "met" if met else "MISSED"
