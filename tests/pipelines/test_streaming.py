"""Both halves streaming side by side over a growing file: drained, killed, started again, the file rotated.

The ledger is what was written: (user, sequence, id). Each line is scored once, a user's lines in their order.
"""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

USERS = 30
SEQUENCES = 20
QUICK = {"FAN_IDENTITY_VISIBILITY_TIMEOUT": "2s", "FAN_IDENTITY_BATCH_SIZE": "25"}


def ledger(seed: int) -> list[dict[str, Any]]:
    """Activities of several users, mixed; each user's own in the order of their sequence, within a day from now."""
    rng = random.Random(seed)
    begin = time.time_ns() // 1_000_000 - 3_600_000
    sequences = dict.fromkeys(range(USERS), 0)
    written = []
    while sequences:
        user = rng.choice(list(sequences))
        sequence = sequences[user]
        if sequence + 1 == SEQUENCES:
            del sequences[user]
        else:
            sequences[user] += 1
        written.append(
            {
                "activityId": f"{seed}-{user}-{sequence}",
                "globalUserId": f"user-{user}",
                "activityType": rng.choice(("login", "search", "pageView", "addToCart")),
                "occurredAt": begin + 1_000 * sequence,
                "context": {"ipAddress": f"10.0.0.{user}"},
            }
        )
    return written


def encoded(entries: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def append_in_pieces(path: Path, data: bytes, seed: int) -> Iterator[int]:
    """Appends data cut at random places, in the middle of lines too; yields what is written so far after each."""
    rng = random.Random(seed)
    cuts = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(40))})
    for begin, end in pairwise(cuts):
        with path.open("ab") as file:
            file.write(data[begin:end])
        yield end


class Workers:
    """The two halves on one store and file."""

    def __init__(self, cli, store, source: Path, beam: list[str]) -> None:
        self._cli = cli
        self._store = store
        self._source = source
        self._beam = ["--", *beam] if beam else []

    def enqueue(self, **env: str) -> Any:
        return self._start("enqueueFromStream", "--source", f"file://{self._source}", **env)

    def score(self, **env: str) -> Any:
        return self._start("scoreUsers", **env)

    def _start(self, *arguments: str, **env: str) -> Any:
        return self._cli.start("run", *arguments, *self._store.flag, "--streaming", "--json", *self._beam, env=env)


@pytest.fixture(params=["DirectRunner", "PrismRunner"])
def beam(request) -> list[str]:
    """Flags of each runner that streams on one machine."""
    if request.param == "DirectRunner":
        return []
    return ["--runner=PrismRunner", f"--prism_location={request.getfixturevalue('prism')}"]


@pytest.fixture
def source(tmp_path) -> Path:
    return tmp_path / "activities.jsonl"


def drained(running: Any, number: int = signal.SIGTERM, code: int = 0, warnings: int = 0) -> dict[str, int]:
    """Stops a worker; its counters."""
    running.signal(number)
    result = running.wait()
    assert result.code == code, result
    first, *rest = result.err_lines
    assert "is running; stop it with Ctrl-C" in first
    assert len(rest) == (code == 1) + warnings, rest
    return {"read": 0, "enqueued": 0, "deduplicated": 0, "received": 0, "scored": 0, **result.json}


def assert_ledger(store, written: list[dict[str, Any]]) -> None:
    """Lost 0, duplicates 0, out of order 0, nothing left in the queue, and the newest is the latest."""
    expected: dict[str, list[str]] = {}
    for entry in written:
        expected.setdefault(entry["globalUserId"], []).append(entry["activityId"])
    assert store.waiting() == 0
    assert store.ids_by_user() == expected
    assert len(store.item_keys()) == len(written) + len(expected), "a score each, and a latest item a user"
    for user, sk in store.item_keys():
        if sk == "LATEST":
            ((body,),) = store.query("SELECT body FROM items WHERE pk = ? AND sk = 'LATEST'", user)
            assert json.loads(body)["activityId"] == expected[user.removeprefix("USER#")][-1]


def test_drained_in_the_middle_and_started_again_every_line_is_scored_once(cli, store, source, beam):
    written = ledger(1)
    data = encoded(written)
    cut = len(encoded(written[:400])) - 30  # in the middle of line 400
    source.touch()
    workers = Workers(cli, store, source, beam)
    enqueue, score = workers.enqueue(), workers.score()
    for end in append_in_pieces(source, data[:cut], 2):
        if end > cut / 2:
            # The second half is written while the first one is being scored.
            score.until(lambda: store.scores() > 0, "first scores")
    score.until(lambda: store.scores() > 100, "more scores")
    first = drained(enqueue, signal.SIGTERM)
    assert 0 < first["read"] <= 399
    assert first["read"] == first["enqueued"] == store.sent()
    scored = drained(score, signal.SIGINT)
    assert scored["received"] == scored["scored"] == store.scores()
    assert store.waiting() == first["enqueued"] - scored["scored"]

    enqueue, score = workers.enqueue(), workers.score()
    for _ in append_in_pieces(source, data[cut:], 3):
        pass
    score.until(lambda: store.scores() == len(written) and store.waiting() == 0, "every line is scored")
    second = drained(enqueue, signal.SIGINT)
    assert first["read"] + second["read"] == len(written), "no line is read twice"
    assert second["deduplicated"] == 0
    assert scored["scored"] + drained(score, signal.SIGTERM)["scored"] == len(written)
    assert store.dead_letters() == []
    assert_ledger(store, written)


def test_killed_and_started_again_nothing_is_lost_or_doubled(cli, store, source, beam):
    written = ledger(2)
    source.write_bytes(encoded(written[:200]))
    workers = Workers(cli, store, source, beam)
    mark = {"KILLED_IN_TEST": store.address}
    enqueue, score = workers.enqueue(**QUICK, **mark), workers.score(**QUICK, **mark)
    enqueue.until(lambda: store.sent() >= 50, "some lines are queued")
    assert enqueue.kill() == -signal.SIGKILL
    enqueue = workers.enqueue(**QUICK)
    score.until(lambda: store.scores() >= 60, "some scores are written")
    assert score.kill() == -signal.SIGKILL
    with source.open("ab") as file:
        file.write(encoded(written[200:]))
    score = workers.score(**QUICK)
    score.until(lambda: store.scores() == len(written) and store.waiting() == 0, "every line is scored")
    drained(enqueue)
    drained(score)
    assert store.dead_letters() == []
    assert_ledger(store, written)
    assert_gone(mark)


def assert_gone(mark: dict[str, str]) -> None:
    """Prism ends with the process it served, also where that one was killed."""
    ((name, value),) = mark.items()
    entry = f"{name}={value}".encode()
    deadline = time.monotonic() + 30
    while left := [process for process in processes() if entry in process]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def processes() -> list[list[bytes]]:
    """The environment of each process of ours, where the system shows it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(path.read_bytes().split(b"\0"))
        except OSError:
            continue
    return found


def test_a_file_that_comes_later_is_rotated_and_holds_bad_lines(cli, store, source):
    written = ledger(3)
    first, second, third, fourth = (written[n * 150 : (n + 1) * 150] for n in range(4))
    bad = [b'{"activityId":"cut', b"\xff\xfe", b'{"activityId":7}']
    workers = Workers(cli, store, source, [])
    enqueue, score = workers.enqueue(), workers.score()

    def until_scored(entries: list[dict[str, Any]]) -> None:
        enqueue.until(lambda: store.sent() >= len(entries), "lines are read")
        score.until(lambda: store.scores() >= len(entries), "lines are scored")

    # Not there yet; then written.
    enqueue.until(lambda: "running" in enqueue.err, "it runs though there is no file")
    source.write_bytes(encoded(first) + b"\n".join(bad) + b"\n")
    until_scored(first)
    # Rotated while it runs: the rest of the old file, then the new one.
    with source.open("ab") as file:
        source.rename(source.with_name("activities.jsonl.1"))
        file.write(encoded(second[:-1]) + encoded(second[-1:]).rstrip(b"\n"))
    source.write_bytes(encoded(third))
    until_scored(first + second + third)
    # Rotated while it does not run.
    counts = drained(enqueue, code=1)
    assert (counts["read"], counts["dead_lettered.malformed"]) == (450 + len(bad), len(bad))
    source.rename(source.with_name("activities.jsonl.2"))
    source.write_bytes(encoded(fourth))
    enqueue = workers.enqueue()
    until_scored(written)
    assert drained(enqueue)["read"] == 150
    score.until(lambda: store.waiting() == 0, "the queue is empty")
    assert drained(score)["scored"] == len(written)
    assert sorted(payload for _, _, payload in store.dead_letters()) == sorted(bad)
    assert_ledger(store, written)


def test_truncated_in_place_the_file_is_read_from_its_start(cli, store, source):
    written = ledger(4)
    workers = Workers(cli, store, source, [])
    source.write_bytes(encoded(written[:400]))
    enqueue = workers.enqueue()
    enqueue.until(lambda: store.sent() == 400, "the first lines are queued")
    os.truncate(source, 0)
    with source.open("ab") as file:
        file.write(encoded(written[400:]))
    enqueue.until(lambda: store.sent() == len(written), "the others are queued")
    assert drained(enqueue, warnings=1)["read"] == len(written)
    assert [message["activityId"] for message in store.messages()] == [entry["activityId"] for entry in written]


def test_with_nothing_to_do_a_signal_ends_it_all_the_same(cli, store, source, beam):
    workers = Workers(cli, store, source, beam)
    running = [workers.enqueue(), workers.score()]
    for one in running:
        one.until(lambda one=one: "running" in one.err, "it runs")
    # Beside each other on one store, both hold it.
    assert [drained(one)["read"] for one in running] == [0, 0]


def test_two_scorers_side_by_side_share_the_users(cli, store, source):
    written = ledger(5)
    source.write_bytes(encoded(written))
    workers = Workers(cli, store, source, [])
    scorers = [workers.score(FAN_IDENTITY_BATCH_SIZE="10") for _ in range(2)]
    for scorer in scorers:
        scorer.until(lambda scorer=scorer: "running" in scorer.err, "it runs")
    enqueue = workers.enqueue(FAN_IDENTITY_BATCH_SIZE="10")
    enqueue.until(lambda: store.scores() == len(written) and store.waiting() == 0, "every line is scored")
    drained(enqueue)
    assert sum(drained(scorer)["scored"] for scorer in scorers) == len(written)
    assert_ledger(store, written)
