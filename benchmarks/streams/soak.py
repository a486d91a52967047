"""Memory of both streaming workers over half an hour at an even rate: it must stay flat.

``python -m fan_identity.benchmarks.streams.soak --minutes 30``. Each worker's command and the runner's server it starts
are watched by their resident set. The first fifth warms up; the rest is cut into windows, and the median of each must
be within 5 % of the first one's.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from .live import Running, evenly, streaming
from .rounds import verdict
from .score import MODEL_MS, settings_of
from .systems import (
    KAFKA,
    activity,
    delete_topic,
    depth,
    fifo_queue,
    forget,
    model_server,
    new_topic,
    score_table,
    unique,
    use_local_servers,
)

TOLERANCE: Final = 0.05
_WINDOWS: Final = 8
_WARM_SHARE: Final = 0.2
_USERS: Final = 2_000
_LOOK_EVERY: Final = 500
_MB: Final = 1_024
_HALF_THROUGH: Final = 60.0


class Watch:
    """Resident sets, by the process they are of.

    Attributes:
        samples: megabytes by process, each with the seconds since watching began.
    """

    def __init__(self, workers: dict[str, Running], every_seconds: float) -> None:
        self.samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._workers = workers
        self._every = every_seconds
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            now = time.monotonic() - self._began
            for name, worker in self._workers.items():
                sums: dict[str, float] = defaultdict(float)
                for process in _tree(worker.process.pid):
                    kind, size = _of_process(process)
                    sums[kind] += size
                for kind, size in sums.items():
                    if size:
                        self.samples[f"{name}, {kind}"].append((now, size))

    def close(self) -> None:
        """Ends watching."""
        self._ended.set()
        self._thread.join()


def _tree(process: int) -> list[int]:
    """A process and all below it."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [one for child in task.read_text().split() for one in _tree(int(child))]
        except OSError:
            continue  # the thread ended
    return found


def _of_process(process: int) -> tuple[str, float]:
    """A process's kind and resident megabytes; 0 where it ended."""
    try:
        name = Path(f"/proc/{process}/comm").read_text().strip()
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return "ended", 0.0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return ("Prism" if name == "prism" else "Python"), int(sizes[0]) / _MB if sizes else 0.0


def drift(samples: Sequence[tuple[float, float]]) -> tuple[list[float], float]:
    """The medians of the windows after the warm-up, and the largest distance from the first, as a share of it."""
    end = samples[-1][0]
    warm = end * _WARM_SHARE
    length = (end - warm) / _WINDOWS
    windows: dict[int, list[float]] = defaultdict(list)
    for moment, size in samples:
        if moment >= warm:
            windows[min(int((moment - warm) / length), _WINDOWS - 1)].append(size)
    medians = [statistics.median(sizes) for _, sizes in sorted(windows.items())]
    return medians, max(abs(median / medians[0] - 1) for median in medians)


def run(minutes: float, rate: float, runner: str) -> bool:
    """Streams through both halves and prints the windows; whether all are flat.

    Raises:
        SystemExit: a worker ended, or not everything was scored.
    """
    prefix, topic = unique("bench"), new_topic()
    users = [f"{prefix}-{number:06d}" for number in range(_USERS)]
    producer: Any = Producer({"bootstrap.servers": KAFKA, "linger.ms": 5})

    def produce(number: int) -> None:
        user = users[number % _USERS]
        producer.produce(topic, activity(number, user, time.time_ns() // 1_000_000), key=user.encode())
        producer.poll(0)
        if number % _LOOK_EVERY == 0:
            for worker in workers.values():
                worker.check()

    workers: dict[str, Running] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        model_server(MODEL_MS) as model,
        fifo_queue() as queue,
        score_table(users) as table,
    ):
        source = f"kafka://{KAFKA}/{topic}"
        settings = {
            **settings_of(queue, table, f"{model}?batch=64"),
            "positions": f"sqlite:///{folder}/positions.db",
        }
        with (
            streaming("enqueueFromStream", {**settings, "source": source}, runner) as enqueuing,
            streaming("scoreUsers", settings, runner) as scoring,
        ):
            workers |= {"enqueueFromStream": enqueuing, "scoreUsers": scoring}
            watch = Watch(workers, max(minutes / 60, 0.25))
            sent = evenly(rate, 60 * minutes, produce)
            producer.flush()
            watch.close()
            patience = max(_HALF_THROUGH, 30 * minutes)
            scoring.until(lambda: depth(queue) == 0, "the queue is empty", patience)
            for worker in workers.values():
                worker.drain()
        left = depth(queue)
    forget(users)
    delete_topic(topic)
    enqueued, scored = enqueuing.counts.get("enqueued", 0), scoring.counts.get("scored", 0)
    print(
        f"\nMemory on {runner} over {minutes:g} minutes at {rate:g} activities/s: {sent:,} sent, {enqueued:,} enqueued,"
    )
    print(f"{scored:,} scored, {left:,} left. MB, medians of {_WINDOWS} windows after the warm-up:")
    flat = True
    for name, samples in sorted(watch.samples.items()):
        medians, distance = drift(samples)
        flat = flat and distance <= TOLERANCE
        told = " ".join(f"{median:7.1f}" for median in medians)
        print(f"{name:28} {told}   at most {100 * distance:.1f} % from the first: {verdict(distance <= TOLERANCE)}")
    return flat and sent <= scored + left


def main() -> None:
    """Runs for the minutes given; exit code 1 where memory is not flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long to stream")
    parser.add_argument("--rate", type=float, default=100.0, help="activities a second")
    parser.add_argument("--runner", default="PrismRunner", help="Beam's: PrismRunner or DirectRunner")
    arguments = parser.parse_args()
    use_local_servers()
    raise SystemExit(0 if run(arguments.minutes, arguments.rate, arguments.runner) else 1)


if __name__ == "__main__":
    main()
