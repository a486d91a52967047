"""Time from a line appended to a file until its score can be read, streaming on Prism.

A writer appends at an even rate; one reader polls the table for each activity's score. The clock of both is the
machine's, so no clocks are compared across machines.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ..io.sqlite.store import SqliteStore

TARGET_P50_MS = 200
TARGET_P99_MS = 600
_POLL_SECONDS = 0.005
_USERS = 400


def run(rate: int, seconds: int, runner: str = "PrismRunner") -> None:
    """Streams ``rate`` lines a second for ``seconds`` and prints the latency's percentiles."""
    with tempfile.TemporaryDirectory() as folder:
        source, store = Path(folder) / "live.jsonl", Path(folder) / "live.db"
        source.touch()
        cli = [sys.executable, "-m", "fan_identity.pipelines.cli", "run"]
        common = ["--store", f"sqlite:///{store}", "--streaming"]
        beam = ["--", f"--runner={runner}"]
        workers = [
            subprocess.Popen([*cli, "enqueueFromStream", "--source", str(source), "--format", "jsonl", *common, *beam]),
            subprocess.Popen([*cli, "scoreUsers", *common, *beam]),
        ]
        try:
            appended = Writer(source)
            readable = Reader(store)
            appended.write(rate, 1)  # warm-up: until the first line came through, both halves are starting
            readable.wait_for(appended.count, 120)
            appended.write(rate, seconds)
            readable.wait_for(appended.count, 60)
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
            codes = [worker.wait(60) for worker in workers]
        waits = sorted(
            1_000 * (readable.seen[name] - at) for name, at in appended.times.items() if name >= f"a-{rate:08d}"
        )
        p50, p90, p99 = (waits[int(len(waits) * share)] for share in (0.5, 0.9, 0.99))
        met = p50 < TARGET_P50_MS and p99 < TARGET_P99_MS
        print(f"\nLatency on {runner}, {rate} events/s for {seconds} s: line appended until its score is readable")
        print(
            f"{len(waits):,} of {rate * seconds:,} scored; p50 {p50:.0f} ms, p90 {p90:.0f} ms, p99 {p99:.0f} ms, "
            f"max {waits[-1]:.0f} ms, mean {statistics.fmean(waits):.0f} ms; workers drained with exit codes {codes}"
        )
        print(f"target: p50 under {TARGET_P50_MS} ms and p99 under {TARGET_P99_MS} ms: {'met' if met else 'MISSED'}")


class Writer:
    """Appends activities at an even rate and remembers when each was in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0
        self.times: dict[str, float] = {}

    def write(self, rate: int, seconds: int) -> None:
        """Appends ``rate * seconds`` lines."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        began = time.perf_counter()
        for number in range(rate * seconds):
            due = began + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            name = f"a-{self.count:08d}"
            activity = {
                "activityId": name,
                "globalUserId": f"user-{self.count % _USERS}",
                "activityType": "pageView",
                "occurredAt": time.time_ns() // 1_000_000,
                "context": {"ipAddress": "10.0.0.1"},
            }
            os.write(descriptor, json.dumps(activity).encode() + b"\n")
            self.times[name] = time.perf_counter()
            self.count += 1
        os.close(descriptor)


class Reader:
    """Watches the table for new scores and remembers when each could be read first."""

    def __init__(self, store: Path) -> None:
        self._store = SqliteStore(store)
        self.seen: dict[str, float] = {}
        self._last_row = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        connection = self._store.connection
        while True:
            # Score items are appended in the order they are written; an upsert keeps its row.
            rows = connection.execute(
                "SELECT rowid, body ->> 'activityId' FROM items WHERE rowid > ? AND sk <> 'LATEST' ORDER BY rowid",
                (self._last_row,),
            ).fetchall()
            now = time.perf_counter()
            for row, name in rows:
                self._last_row = row
                self.seen.setdefault(name, now)
            time.sleep(_POLL_SECONDS)

    def wait_for(self, count: int, seconds: float) -> None:
        """Returns once ``count`` scores were seen.

        Raises:
            TimeoutError: not within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while len(self.seen) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.seen):,} of {count:,} scores after {seconds:.0f} s")
            time.sleep(0.05)
