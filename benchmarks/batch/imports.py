"""Imports into DynamoDB Local, SQLite and Redis beside loops by hand; memory and cost a row at two sizes."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ...domain.keys import arm_cache_key
from ...io.addresses import parse_address
from ...io.dynamodb.table import DynamoDbTable
from ...io.redis_cache import RedisArmCache
from ..streams.rounds import verdict
from ..streams.systems import DYNAMODB, REDIS, arm_cache, aws, environment, table_address, unique
from . import peers
from .rows import UPDATED_AT, write_scores

_THREADS: Final = (2, 4, 8, 16)
_KB_A_MB: Final = 1_024
_TARGET_ONE_THREAD: Final = 2
_TARGET_THREADS: Final = 0.85
_TARGET_LOOP: Final = 0.7
_TARGET_GROWTH: Final = 1.2
_TARGET_MB: Final = 800

Timings = dict[str, list[float]]
"""Rows a second of each round, by contender."""


def dynamodb(rows: int, rounds: int) -> None:
    """Import into DynamoDB Local: the new version's items alone, and the whole job with comparison and verdict."""
    print(f"\nBot-or-not scores into DynamoDB Local, {rows:,} rows, {rounds} rounds in turn, rows/s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.parquet"
        write_scores(path, rows)
        with _new_table() as table:  # warms the server up, and finds the best number of threads
            tried = {threads: _rate(lambda n=threads, t=table: peers.dynamodb(path, t, n)) for threads in _THREADS}
        best = max(tried, key=lambda threads: tried[threads])
        print(f"  batch_writer by threads, once: {', '.join(f'{n}: {rate:,.0f}' for n, rate in tried.items())}")
        timings: Timings = {}
        one, many = "boto3 batch_writer, one thread", f"boto3 batch_writer, {best} threads"
        for _ in range(rounds):
            with _new_table() as table:
                _note(timings, one, _rate(lambda t=table: peers.dynamodb(path, t, 1)))
            with _new_table() as table:
                _note(timings, many, _rate(lambda t=table: peers.dynamodb(path, t, best)))
            with _new_table() as table:
                _note_job(timings, _import(path, {"table": table_address(table), "cache": REDIS}, folder), rows)
        _print(timings, one)
        stage, least, most = _median(timings, "ours, staging"), _median(timings, one), _median(timings, many)
        _judge("staging beside one thread", stage / least, _TARGET_ONE_THREAD)
        _judge(f"staging beside {best} threads", stage / most, _TARGET_THREADS)


def sqlite(rows: int, rounds: int) -> None:
    """Import into SQLite."""
    print(f"\nBot-or-not scores into SQLite, {rows:,} rows, {rounds} rounds in turn, rows/s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.parquet"
        write_scores(path, rows)
        timings: Timings = {}
        hand = "executemany"
        for number in range(rounds):
            theirs, ours = Path(folder) / f"hand-{number}.db", Path(folder) / f"ours-{number}.db"
            _note(timings, hand, _rate(lambda file=theirs: peers.sqlite(path, file)))
            _note_job(timings, _import(path, {"store": f"sqlite:///{ours}"}, folder), rows)
            theirs.unlink()
            ours.unlink()
        _print(timings, hand)
        ratio = _median(timings, "ours, staging") / _median(timings, hand)
        _judge("staging beside executemany", ratio, _TARGET_LOOP)


def redis(entries: int, rounds: int) -> None:
    """Entries into the ARM cache, where newer wins, beside plain SETs."""
    print(f"\nEntries into the ARM cache in Redis, {entries:,}, {rounds} rounds in turn, entries/s")
    cache = RedisArmCache.of(parse_address(REDIS, "cache"), "cache")
    value: dict[str, Any] = {
        "arm_risk": 3,
        "timestamp": UPDATED_AT,
        "score_date": "2025-11-24",
        "modelVersion": "m-1",
        "reasons": ["R"],
    }
    values = [(arm_cache_key(f"user-{n:09d}"), {"global_user_id": f"user-{n:09d}", **value}) for n in range(entries)]
    timings: Timings = {}
    plain, ours = "pipelined SET", "ours, newer wins"
    for number in range(rounds):
        encoded = [(key, json.dumps(value).encode()) for key, value in values]
        _note(timings, plain, _rate(lambda e=encoded: peers.redis_cache(e)))
        arm_cache().flushdb()
        versioned = [(key, f"{number:015d}#a", value) for key, value in values]

        def put(versioned: Any = versioned) -> int:
            cache.put_if_newer(versioned)
            return len(versioned)

        _note(timings, ours, _rate(put))
        arm_cache().flushdb()
    _print(timings, plain)
    ratio = _median(timings, ours) / _median(timings, plain)
    _judge("ours beside SET", ratio, _TARGET_LOOP)


def growth(small: int, large: int) -> None:
    """Memory and cost a row of whole imports of two sizes into SQLite."""
    print("\nWhole imports of Parquet into SQLite, one process")
    costs: list[float] = []
    peak = 0.0
    for rows in (small, large):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scores.parquet"
            _apart(
                f"import sys; from pathlib import Path; from {__package__}.rows import write_scores; "
                f"write_scores(Path(sys.argv[1]), {rows})",
                str(path),
            )
            job = _import(path, {"store": f"sqlite:///{folder}/fans.db"}, folder)
            seconds = sum(job["seconds"].values())
            costs.append(seconds / rows * 1e6)
            peak = job["peakMb"]
            steps = ", ".join(f"{step} {taken:.0f} s" for step, taken in job["seconds"].items())
            print(f"{rows:>12,} rows: {costs[-1]:6.1f} µs a row ({steps}), peak {peak:,.0f} MB")
    ratio = costs[1] / costs[0]
    print(f"  cost a row {ratio:.2f} (at most {_TARGET_GROWTH}): {verdict(ratio <= _TARGET_GROWTH)}")
    print(f"  peak under {_TARGET_MB} MB: {verdict(peak < _TARGET_MB)}")


def _import(path: Path, settings: Mapping[str, str], folder: str) -> dict[str, Any]:
    """Runs ``fan-identity imports start`` in a process of its own; its summary, with the process's peak memory."""
    command = [
        sys.executable,
        "-m",
        "fan_identity.pipelines.cli",
        "imports",
        "start",
        "bot-or-not",
        str(path),
        "--json",
    ]
    command += ["--max-unknown", "1"]
    env = {**environment(settings), "TMPDIR": folder}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    if process.stdout is None or process.stderr is None:
        raise AssertionError("asked for above")
    out = process.stdout.read()
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"the import failed: {said}")
    return {**json.loads(out), "peakMb": usage.ru_maxrss / _KB_A_MB}


def _apart(code: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


@contextmanager
def _new_table() -> Generator[str]:
    name = unique("bench")
    DynamoDbTable.of(parse_address(table_address(name), "table"), "table").create()
    try:
        yield name
    finally:
        aws("dynamodb", DYNAMODB).delete_table(TableName=name)


def _rate(work: Callable[[], int]) -> float:
    began = time.perf_counter()
    number = work()
    return number / (time.perf_counter() - began)


def _note(timings: Timings, name: str, rate: float) -> None:
    timings.setdefault(name, []).append(rate)


def _note_job(timings: Timings, job: Mapping[str, Any], rows: int) -> None:
    _note(timings, "ours, staging", rows / job["seconds"]["stage"])
    _note(timings, "ours, comparing", rows / job["seconds"]["compare"])
    _note(timings, "ours, the whole job", rows / sum(job["seconds"].values()))


def _median(timings: Timings, name: str) -> float:
    return statistics.median(timings[name])


def _judge(what: str, ratio: float, target: float) -> None:
    print(f"  {what} {ratio:.2f} ({target}): {verdict(ratio >= target)}")


def _print(timings: Timings, base: str) -> None:
    for name, rates in timings.items():
        rate = statistics.median(rates)
        print(
            f"  {name:36}{rate:>10,.0f}  {min(rates):>8,.0f}-{max(rates):<8,.0f}{rate / _median(timings, base):>6.2f}"
        )
