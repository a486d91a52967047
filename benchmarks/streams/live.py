"""Streaming workers as ``fan-identity run WORKER --streaming`` starts them, and what is sent at an even rate."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final

from .systems import environment

_DRAIN_SECONDS: Final = 120
_POLL_SECONDS: Final = 0.2
_TICK_SECONDS: Final = 0.002


class Running:
    """A worker that streams.

    Attributes:
        process: of its command; its children are the runner's.
        counts: the worker's counters, once it drained.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", name: str) -> None:
        self.process = process
        self.counts: dict[str, int] = {}
        self._name = name

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
        """Returns once a condition holds.

        Raises:
            SystemExit: the worker ended before, or it took longer than ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise SystemExit(f"{self._name}: not within {seconds:.0f} s: {what}")
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Looks whether it still runs.

        Raises:
            SystemExit: it ended.
        """
        if self.process.poll() is not None:
            raise SystemExit(f"{self._name} ended with {self.process.returncode}: {self._told()}")

    def drain(self) -> None:
        """Has it finish what it read, and end.

        Raises:
            SystemExit: it ended otherwise than well.
        """
        self.process.send_signal(signal.SIGTERM)
        told, said = self.process.communicate(timeout=_DRAIN_SECONDS)
        if self.process.returncode:
            raise SystemExit(f"{self._name} ended with {self.process.returncode}: {said.decode()}")
        self.counts = json.loads(told)

    def _told(self) -> str:
        return "" if self.process.stderr is None else self.process.stderr.read().decode()


@contextmanager
def streaming(worker: str, settings: Mapping[str, str], runner: str) -> Generator[Running]:
    """Streams with a worker on a runner; killed at the block's end if it was not drained."""
    command = [sys.executable, "-m", "fan_identity.pipelines.cli", "run", worker, "--streaming", "--json"]
    process = subprocess.Popen(
        [*command, "--", f"--runner={runner}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(settings),
    )
    try:
        yield Running(process, worker)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def evenly(rate: float, seconds: float, act: Callable[[int], object], first: int = 0) -> int:
    """Calls ``act`` with growing numbers from ``first`` on, ``rate`` times a second; the number after the last."""
    began = time.perf_counter()
    number = first
    last = first + int(rate * seconds)
    while number < last:
        due = first + int((time.perf_counter() - began) * rate) + 1
        while number < min(due, last):
            act(number)
            number += 1
        time.sleep(_TICK_SECONDS)
    return number


def percentiles(waits_ms: list[float]) -> str:
    """p50, p90, p99 and maximum in words."""
    p50, p90, p99 = (percentile(waits_ms, share) for share in (0.5, 0.9, 0.99))
    return f"p50 {p50:.0f} ms, p90 {p90:.0f} ms, p99 {p99:.0f} ms, max {max(waits_ms):.0f} ms"


def percentile(waits_ms: list[float], share: float) -> float:
    """The wait that a share of them does not exceed."""
    return sorted(waits_ms)[min(int(len(waits_ms) * share), len(waits_ms) - 1)]
