"""kill -9 at any moment of an import, a rollback or a clean: readers see a whole version, and once more ends it all.

Where a run is killed is told by what it has done so far, not by the clock; a thread reads as the workers do, all along.
"""

import json
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..imported_fans import (
    ANY,
    BON,
    CLUSTER,
    COMMAND,
    TIME,
    VERSION,
    Importing,
    copy_of,
    pointer,
    scores_of,
    some_rows,
    unlock,
    whole,
    winners,
    written,
)

KINDS = (BON, CLUSTER)
FANS = 90


@pytest.fixture(scope="module")
def base(sale, store_at, commands, tmp_path_factory) -> Importing:
    """A scored store with three versions of each kind, the third of them active, and a file of a fourth."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "sale.jsonl").write_bytes(b"\n".join(sale(80, 15, seed=21)) + b"\n")
    base = Importing(store_at(folder / "fans.db"), folder)
    base.store.score(folder / "sale.jsonl")
    for kind in KINDS:
        for number in range(4):
            path = written(folder / f"{kind}-{number}.csv", kind, rows_of(base, kind, number))
            if number < 3:
                base.start(kind, path)
    return base


def rows_of(base: Importing, kind: str, number: int) -> list[tuple[str, Any, int]]:
    fans = sorted(item["globalUserId"] for item in scores_of(base.store).latest.values())
    rng = random.Random(number)
    return some_rows(kind, rng.sample(fans, min(FANS, len(fans) - 3)), number + 50, TIME + number)


@pytest.fixture
def imports(base, store_at, tmp_path) -> Importing:
    return Importing(copy_of(base.store, tmp_path / "fans.db", store_at), base.folder)


def arguments_of(imports: Importing, command: str, kind: str, work: Path) -> list[object]:
    fourth = imports.folder / f"{kind}-3.csv"
    more: dict[str, list[object]] = {"start": [fourth, *ANY, "--work", work], "clean": ["--keep", "0"]}
    return ["imports", command, COMMAND[kind], *more.get(command, []), *imports.store.flag]


def state_of(store: Any) -> dict[str, Any]:
    """All that is left of a run: version names and times of runs taken out, leftovers of killed ones left in."""
    names: dict[str, str] = {}
    rows = [row for row in store.query("SELECT pk, sk, body FROM items ORDER BY pk, sk") if row[0] != "LOCK#imports"]
    for kind in KINDS:
        records = [json.loads(body) for pk, sk, body in rows if pk == f"IMPORT#{kind}" and sk.startswith("VERSION#")]
        for record in records:
            names[record["importVersion"]] = f"{kind} {record['digest'][:8]}"
    items = []
    for pk, sk, body in rows:
        item = json.loads(body)
        for name in ("dateUpdated", "requestId", "activatedAt", "startedAt"):
            item.pop(name, None)
        text = json.dumps({**item, "PK": pk, "SK": sk}, sort_keys=True)
        items.append(VERSION.sub(lambda found: names.get(found[0], found[0]), text))
    return {"items": sorted(items), "scores": scores_of(store), "letters": store.dead_letters()}


def ended(imports: Importing, command: str, kind: str, work: Path) -> dict[str, Any]:
    """The state once a command has run to its end and its leftovers are cleaned."""
    result = imports.store.cli(*arguments_of(imports, command, kind, work))
    assert (result.code, len(result.err_lines)) == (0, command == "start"), result
    if command == "start":
        assert not list(work.glob("fan-identity-*")), "the folders of killed runs are gone too"
    cleaned = imports.store.cli("imports", "clean", COMMAND[kind], "--keep", "2", *imports.store.flag)
    assert cleaned.code == 0, cleaned
    return state_of(imports.store)


class Moments:
    """How far a command is, told from the store and the work folder."""

    def __init__(self, store: Any, kind: str, work: Path) -> None:
        self._store, self._kind, self._work = store, kind, work
        self._generation = pointer(store, kind)["generation"]
        self._items = self._number_of_items()
        self._suffix = f"\0{sum(pointer(store, kind)['generation'] for kind in KINDS) + 1:012d}"

    def _number_of_items(self) -> int:
        return self._store.number("SELECT count(*) FROM items WHERE pk NOT LIKE 'LOCK#%'")

    def locked(self) -> bool:
        rows = self._store.query("SELECT body FROM items WHERE pk = 'LOCK#imports'")
        return any(json.loads(body)["owner"] for (body,) in rows)

    def compared(self, buckets: int) -> bool:
        return len(list(self._work.glob("*/mark-compared-*"))) >= buckets

    def grown(self, items: int) -> bool:
        return abs(self._number_of_items() - self._items) >= items

    def moved(self) -> bool:
        return pointer(self._store, self._kind)["generation"] > self._generation

    def followed(self, fans: int) -> bool:
        versions = self._store.query("SELECT version FROM items WHERE sk = 'LATEST'")
        return sum(version.endswith(self._suffix) for (version,) in versions) >= fans

    def all(self, command: str, rng: random.Random) -> list[tuple[str, Callable[[], bool]]]:
        """One moment of each step of a command."""
        steps: list[tuple[str, Callable[[], bool]]] = [("locked", self.locked)]
        if command == "start":
            buckets, items = rng.randint(1, 50), rng.randint(1, 200)
            steps += [(f"{buckets} compared", lambda: self.compared(buckets))]
            steps += [(f"{items} staged", lambda: self.grown(items))]
        if command == "clean":
            items = rng.randint(1, 150)
            return [*steps, (f"{items} deleted", lambda: self.grown(items))]
        fans = rng.randint(1, 40)
        return [*steps, ("moved", self.moved), (f"{fans} followed", lambda: self.followed(fans))]


@contextmanager
def reader(store: Any) -> Iterator[None]:
    """Reads both active versions over and over; fails where one is not whole."""
    done, broken = threading.Event(), list[str]()

    def read() -> None:
        while not done.is_set():
            for kind in KINDS:
                seen = pointer(store, kind)
                # Another version may become active between two reads of it.
                if not whole(store, kind) and pointer(store, kind) == seen:
                    broken.append(f"{kind}: {seen}")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not broken


def killed_at(imports: Importing, command: str, kind: str, work: Path, moment: str, reached: Any) -> None:
    """Kills a command at a moment; what is active must be whole all along. Its lock is taken away."""
    with reader(imports.store):
        run = imports.store.cli.start(*arguments_of(imports, command, kind, work))
        run.until(reached, moment)
        assert run.kill() == -signal.SIGKILL, "it was to be killed, not to be done"
        assert all(whole(imports.store, each) for each in KINDS)
        unlock(imports.store)


@pytest.fixture(scope="module")
def undisturbed(base, store_at, tmp_path_factory) -> Callable[[str, str], dict[str, Any]]:
    states: dict[tuple[str, str], dict[str, Any]] = {}

    def state(command: str, kind: str) -> dict[str, Any]:
        if (command, kind) not in states:
            folder = tmp_path_factory.mktemp("undisturbed")
            imports = Importing(copy_of(base.store, folder / "fans.db", store_at), base.folder)
            states[command, kind] = ended(imports, command, kind, folder)
        return states[command, kind]

    return state


FAST = [
    ("start", BON, 1),
    ("start", CLUSTER, 2),
    ("start", BON, 3),
    ("start", CLUSTER, 4),
    ("rollback", BON, 1),
    ("rollback", CLUSTER, 2),
    ("clean", BON, 1),
]  # fmt: skip
"""A command, its kind, and which of its moments to kill it at."""


@pytest.mark.parametrize(
    ("command", "kind", "number", "seed"),
    [(*each, 0) for each in FAST]
    + [
        pytest.param(command, kind, number, seed, marks=pytest.mark.slow)
        for command, moments in (("start", 5), ("rollback", 3), ("clean", 2))
        for kind in KINDS
        for number in range(moments)
        for seed in range(1, 5)
    ],
)
def test_killed_once_a_command_run_again_ends_as_if_nothing_had_been(
    imports, undisturbed, tmp_path, command, kind, number, seed
):
    rng = random.Random(f"{command} {kind} {number} {seed}")
    moment, reached = Moments(imports.store, kind, tmp_path).all(command, rng)[number]
    killed_at(imports, command, kind, tmp_path, moment, reached)
    assert ended(imports, command, kind, tmp_path) == undisturbed(command, kind)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_every_step_one_after_the_other_an_import_still_ends_well(imports, undisturbed, tmp_path, seed):
    rng = random.Random(seed)
    kind = KINDS[seed % 2]
    moments = Moments(imports.store, kind, tmp_path)
    for moment, reached in moments.all("start", rng)[:4]:
        killed_at(imports, "start", kind, tmp_path, moment, reached)
    assert ended(imports, "start", kind, tmp_path) == undisturbed("start", kind)


def test_a_rollback_after_a_killed_clean_does_not_go_back_to_what_is_left(imports, tmp_path):
    moments = Moments(imports.store, BON, tmp_path)
    killed_at(imports, "clean", BON, tmp_path, "some deleted", lambda: moments.grown(30))
    first, second = (record["importVersion"] for record in imports.listed("bot-or-not")[:0:-1])
    assert imports.rollback(BON)["active"] == second
    assert whole(imports.store, BON)
    result = imports.store.cli("imports", "rollback", "bot-or-not", *imports.store.flag)
    assert (result.code, len(result.err_lines)) == (2, 1), result
    assert f"version {first} was deleted" in result.err
    assert whole(imports.store, BON)


@pytest.mark.parametrize(("number", "stop"), [(1, signal.SIGINT), (2, signal.SIGINT), (2, signal.SIGTERM)])
def test_a_stopped_run_leaves_what_was_active_and_says_nothing_more(imports, undisturbed, tmp_path, number, stop):
    moment, reached = Moments(imports.store, CLUSTER, tmp_path).all("start", random.Random(number))[number]
    seen = pointer(imports.store, CLUSTER)
    summary = tmp_path / "summary.json"
    run = imports.store.cli.start(*arguments_of(imports, "start", CLUSTER, tmp_path), "--summary", summary)
    run.until(reached, moment)
    run.signal(stop)
    result = run.wait()
    assert (result.code, result.err, result.out) == (130, "", b"")
    assert json.loads(summary.read_text())["outcome"] == "interrupted"
    assert pointer(imports.store, CLUSTER) == seen
    assert not list(tmp_path.glob("fan-identity-*")), "the work folder is gone"
    # The lock was given back: nobody waits.
    assert ended(imports, "start", CLUSTER, tmp_path) == undisturbed("start", CLUSTER)


def test_a_dry_run_finishes_nothing_a_killed_run_left(imports, tmp_path):
    moments = Moments(imports.store, BON, tmp_path)
    killed_at(imports, "start", BON, tmp_path, "moved", moments.moved)
    left = state_of(imports.store)
    path = written(tmp_path / "other.csv", BON, some_rows(BON, "abc", 1, TIME + 9))
    imports.start(BON, path, "--dry-run")
    assert state_of(imports.store) == left
    followed = imports.store.cli("imports", "follow", "bot-or-not", *imports.store.flag, "--json")
    assert (followed.code, followed.err) == (0, "")
    rows = winners(BON, rows_of(imports, BON, 3))
    for item in scores_of(imports.store).latest.values():
        assert ("model" in item) or item["globalUserId"] not in rows
