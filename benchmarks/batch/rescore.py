"""What a rescoring costs live traffic: p99 of streaming with and without one beside it, on one SQLite store.

Lines are appended at an even rate and both workers stream (``benchmarks/latency.py``). Rounds alternate: nothing
beside, a rescoring at its default rate, and one that is held to no rate, for comparison.

    python -m fan_identity.benchmarks.batch.rescore
"""

import argparse
import json
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from ..latency import Reader, Writer
from ..run import machine

_CLI = [sys.executable, "-m", "fan_identity.pipelines.cli"]
_WAIT_SECONDS = 180.0
_DEFAULT = "200/s"
_NO_LIMIT = "1000000/s"


def main() -> None:
    """Runs the rounds and prints each contender's median and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fans", type=int, default=6_000, help="whom there are to rescore")
    parser.add_argument("--rate", type=int, default=50, help="live events a second")
    parser.add_argument("--seconds", type=int, default=15, help="of live traffic a round")
    arguments = parser.parse_args()
    print(f"{machine()}; Python {platform.python_version()}, Beam {version('apache-beam')}")
    run(arguments.rounds, arguments.fans, arguments.rate, arguments.seconds)


def run(rounds: int, fans: int, rate: int, seconds: int) -> None:
    """Measures, with a store of so many fans in a folder that is deleted afterwards."""
    found: dict[str, list[float]] = {"nothing beside": [], f"rescore at {_DEFAULT}": [], "rescore without limit": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _fill(folder, fans)
        with _streaming(folder) as (writer, reader):
            for number in range(rounds):
                for what, waits in found.items():
                    limit = None if what == "nothing beside" else _DEFAULT if _DEFAULT in what else _NO_LIMIT
                    with _beside(folder, limit, f"{what} {number}".replace(" ", "-"), reader):
                        waits.append(_p99_ms(writer, reader, rate, seconds))
    alone = statistics.median(found["nothing beside"])
    print(f"live p99 at {rate} events/s for {seconds} s, {fans:,} fans, median of {rounds} rounds:")
    for what, waits in found.items():
        median = statistics.median(waits)
        each = ", ".join(f"{one:.0f}" for one in waits)
        print(f"  {what:24} {median:7.0f} ms  ({each})  {median / alone:.2f} of nothing beside")


def _fill(folder: Path, fans: int) -> None:
    lines = (
        {
            "activityId": f"f-{fan}",
            "globalUserId": f"fan-{fan}",
            "activityType": "login",
            "occurredAt": 1_750_000_000_000,
        }
        for fan in range(fans)
    )
    (folder / "fans.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "live.jsonl").touch()
    command = [*_CLI, "score", str(folder / "fans.jsonl"), "--store", f"sqlite:///{folder}/live.db"]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def _streaming(folder: Path) -> Generator[tuple[Writer, Reader]]:
    """Both workers at work, warm."""
    common = ["--store", f"sqlite:///{folder}/live.db", "--streaming"]
    workers = [
        subprocess.Popen([*_CLI, "run", "enqueueFromStream", "--source", f"{folder}/live.jsonl", *common]),
        subprocess.Popen([*_CLI, "run", "scoreUsers", *common]),
    ]
    try:
        writer, reader = Writer(folder / "live.jsonl"), Reader(folder / "live.db")
        _p99_ms(writer, reader, 50, 2)
        yield writer, reader
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait(60)


@contextmanager
def _beside(folder: Path, rate: str | None, name: str, reader: Reader) -> Generator[None]:
    """A rescoring that has begun to score, while the block runs; it is ended then, done or not."""
    if rate is None:
        yield
        return
    users = folder / "users.txt"
    users.write_text("".join(f"fan-{fan}\n" for fan in range(sum(1 for _ in (folder / "fans.jsonl").open()))))
    command = [*_CLI, "rescore", "--users", str(users), "--rate", rate, "--rescore-id", name]
    job = subprocess.Popen([*command, "--store", f"sqlite:///{folder}/live.db"], stdout=subprocess.DEVNULL)
    try:
        _wait_until_seen(reader, f"rescore:{name}")
        yield
        print(f"    {name}: {'still scoring' if job.poll() is None else 'was done'} when the round ended")
    finally:
        job.kill()
        job.wait()


def _p99_ms(writer: Writer, reader: Reader, rate: int, seconds: int) -> float:
    before = set(writer.times)
    writer.write(rate, seconds)
    names = [name for name in writer.times if name not in before]
    for name in names:
        _wait_until_seen(reader, name)
    waits = sorted(1_000 * (reader.seen[name] - writer.times[name]) for name in names)
    return waits[int(len(waits) * 0.99)]


def _wait_until_seen(reader: Reader, name: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while name not in reader.seen:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no score of {name} after {_WAIT_SECONDS:.0f} s")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
