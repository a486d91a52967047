"""Runs that end before their time: killed at any moment, or asked to stop. Nothing is lost and nothing doubled."""

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ACTIVITIES = "SELECT * FROM activities ORDER BY user, time_ms, activity_id"


@pytest.fixture(scope="module")
def lines(sale) -> list[bytes]:
    return sale(550, 35, seed=4, malformed=0.004, duplicates=0.02)


@pytest.fixture(scope="module")
def source(lines, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("kill") / "sale.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


class Undisturbed:
    """What a run leaves that nobody disturbs."""

    def __init__(self, store, source: Path) -> None:
        self.books = store.score(source)
        self.state = state(store)
        self.messages = self.books["enqueued"]
        self.scorable = self.messages + self.books["deduplicated"]


def state(store) -> dict[str, Any]:
    return {
        "dump": store.dump(),
        "dead letters": store.dead_letters(),
        "activities": store.query(ACTIVITIES),
        "scores": store.scores(),
        "messages": store.messages(),
    }


@pytest.fixture(scope="module")
def undisturbed(source, store_at, tmp_path_factory) -> Undisturbed:
    return Undisturbed(store_at(tmp_path_factory.mktemp("undisturbed") / "fans.db"), source)


def test_the_sale_is_worth_killing(lines, undisturbed):
    assert 5_000 <= len(lines) <= 10_000
    assert undisturbed.books["deadLetteredTotal"] > 10
    assert undisturbed.books["deduplicated"] > 50


class Progress:
    """How far a run is in one half, 0 to 1, told from the store: by what was sent, or by what was scored."""

    def __init__(self, store, whole: Undisturbed, half: str) -> None:
        self._store = store
        self._whole = whole
        self._half = half
        self._sent_before = store.sent()

    def __call__(self) -> float:
        sent = (self._store.sent() - self._sent_before) / self._whole.scorable
        if self._half == "enqueued":
            return sent
        # Half when its score is written, half when its message is deleted.
        deleted = self._whole.messages - self._store.waiting()
        return (self._store.scores() + deleted) / (2 * self._whole.messages) if sent >= 1 else 0.0

    def reached(self, share: float) -> Callable[[], bool]:
        return lambda: self() >= share


def kill_points(rng: random.Random) -> list[tuple[str, float]]:
    """Five moments to kill at, one after the other: the half of the run and how far it is in it.

    A run that goes on reads everything again, so the first half can be hit again later.
    """
    scoring = [("scored", rng.uniform(low, low + 0.27)) for low in (0.01, 0.32, 0.62)]
    points: list[tuple[str, float]] = list(scoring)
    for _ in range(2):
        points.insert(rng.randrange(len(points) + 1), ("enqueued", rng.uniform(0.001, 0.95)))
    return points


@pytest.mark.parametrize("seed", range(4))
def test_killed_five_times_a_run_loses_nothing_and_doubles_nothing(cli, store, source, undisturbed, seed):
    rng = random.Random(seed)
    for half, share in kill_points(rng):
        progress = Progress(store, undisturbed, half)
        size = rng.choice((40, 150, 500))
        # Hidden for long: the next run must take over what the killed one had in flight.
        env = {"FAN_IDENTITY_BATCH_SIZE": str(size), "FAN_IDENTITY_VISIBILITY_TIMEOUT": "1h"}
        run = cli.start("score", source, *store.flag, "--json", env=env)
        run.until(progress.reached(share), f"{share:.2f} were {half}")
        assert run.kill() == -signal.SIGKILL, "it was to be killed, not to be done"
        assert store.query("PRAGMA integrity_check") == [("ok",)]
    waiting = store.waiting()
    books = store.score(source)
    assert books["waitingBefore"] == waiting > 0
    assert books["waitingAfter"] == books["unaccounted"] == 0
    for name in ("read", "rejected", "deadLettered"):
        assert books[name] == undisturbed.books[name]
    assert books["enqueued"] + books["deduplicated"] == undisturbed.scorable
    assert books["scored"] == waiting + books["enqueued"]
    assert state(store) == undisturbed.state


@pytest.mark.parametrize(
    ("half", "number"), [("enqueued", signal.SIGINT), ("scored", signal.SIGINT), ("scored", signal.SIGTERM)]
)
def test_asked_to_stop_a_run_balances_its_books_and_the_next_one_finishes(
    cli, store, source, undisturbed, half, number
):
    progress = Progress(store, undisturbed, half)
    run = cli.start("score", source, *store.flag, "--json", env={"FAN_IDENTITY_BATCH_SIZE": "50"})
    run.until(progress.reached(0.3), f"a third was {half}")
    run.signal(number)
    result = run.wait()
    assert result.code == 130
    books = result.json
    waiting = store.waiting()
    assert result.err_lines == [
        f"stopped: {waiting:,} messages wait in the queue; run the same command again to finish"
    ]
    assert books["waitingAfter"] == waiting > 0
    assert (books["scored"] == 0) == (half == "enqueued")
    assert (books["read"] < undisturbed.books["read"]) == (half == "enqueued")
    assert books["read"] == sum(
        books[name] for name in ("rejectedTotal", "deduplicated", "scored", "deadLetteredTotal", "waitingAfter")
    )
    assert books["unaccounted"] == 0
    assert store.scores() == books["scored"]
    again = store.score(source)
    assert again["waitingBefore"] == waiting
    assert state(store) == undisturbed.state


TWO_WORKERS = ("--", "--direct_num_workers=2", "--direct_running_mode=multi_processing")


def test_ctrl_c_stops_two_workers_and_the_next_run_finishes(cli, store, source, undisturbed):
    progress = Progress(store, undisturbed, "enqueued")
    run = cli.start("score", source, *store.flag, "--json", *TWO_WORKERS, env={"FAN_IDENTITY_BATCH_SIZE": "50"})
    run.until(progress.reached(0.1), "some were enqueued")
    run.signal_all(signal.SIGINT)
    result = run.wait()
    assert (result.code, len(result.err_lines)) == (130, 1)
    assert result.json["unaccounted"] == 0
    assert 0 < result.json["waitingAfter"] == store.waiting() < undisturbed.messages
    store.score(source)
    assert state(store) == undisturbed.state


def test_killed_a_worker_takes_its_two_processes_with_it(cli, store, source, undisturbed):
    assert cli("run", "enqueueFromStream", "--source", source, *store.flag).code == 1
    run = cli.start("run", "scoreUsers", *store.flag, *TWO_WORKERS, env={"FAN_IDENTITY_BATCH_SIZE": "20"})
    run.until(lambda: store.scores() >= 500, "some were scored")
    assert run.kill() == -signal.SIGKILL
    waiting = store.waiting()
    books = store.score(source)
    assert books["waitingBefore"] == waiting > undisturbed.messages / 2, "neither went on"
    assert state(store) == undisturbed.state
