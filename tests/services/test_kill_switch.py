"""The kill switch of every worker, on a real Unleash server: how soon it is felt, and that nothing is lost.

Each worker of the registry runs over a source of a kind of its own, so that every kind of source is there. What is
measured is from the call of the admin API to the effect: the last message that was still worked off, and the first one
again. The figures are printed; the assertion is on the effect.
"""

import json
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fan_identity.io.backends import open_flags, open_queue
from fan_identity.io.flags import TOKEN_ENV
from fan_identity.io.ports import QueueEntry
from fan_identity.io.registry import WORKERS, Kind, worker_named
from fan_identity.io.settings import load_settings
from fan_identity.serving.lambda_handler import answer

from ..conftest import CommandLine, Running, Store
from .conftest import System
from .unleash import PATIENCE, TOKEN, UNLEASH, Toggle, until

STREAM_WORKERS = [name for name, worker in WORKERS.items() if worker.kind.value != "liveness"]
QUIET_SECONDS = 2.5
"""Without an effect for so long while messages come, a worker is taken to have stopped."""

OFF, ON = "switched off by its flag", "switched on by its flag"
MOST_MS = 20_000
"""Generous: the machine may be busy. What it takes is printed."""


@dataclass
class Source:
    """Where a worker reads, and how one more message gets there."""

    kind: str
    arguments: tuple[str, ...]
    put: Callable[[int], None]


@dataclass
class Place:
    """What a test's sources and workers share."""

    system: System
    store: Store
    folder: Path
    prefix: str

    def activity(self, number: int, user: str | None = None) -> bytes:
        """An activity; each user has every 10th, in order, where none is named."""
        fields = {
            "activityId": f"a{number}",
            "globalUserId": user or f"{self.prefix}{number % 10}",
            "activityType": "login",
            "occurredAt": time.time_ns() // 1_000_000,
        }
        return json.dumps(fields).encode()

    def source(self, worker: str) -> Source:  # noqa: PLR0911 - one kind of source after the other
        """The worker's source; those that read the store's queue are told apart by what their messages are."""
        match worker:
            case "enqueueFromStream":
                topic = self.system.topic()
                return self._read("Kafka", topic, lambda n: self.system.produce(topic, [("k", self.activity(n))]))
            case "enqueueFromPurchaseStream":
                stream = self.system.stream(1)
                put = lambda n: self.system.put_records(stream, [("k", self.activity(n))])  # noqa: E731
                return self._read("Kinesis", stream, put)
            case "enqueueFromVfStream":
                queue = self.system.queue(fifo=False)
                return self._read("SQS as a source", queue, lambda n: self.system.send(queue, self.activity(n)))
            case "enqueueFromSQJourneyStream":
                file = self.folder / "journey.jsonl"
                file.touch()
                return self._read("followed file", f"file://{file}", lambda n: self._append(file, n))
            case "enqueueFromDemandStream":
                topic = self.system.subscription()
                put = lambda n: self.system.publish(topic, [("k", self.activity(n))])  # noqa: E731
                return self._read("Pub/Sub", topic, put)
            case "scoreUsers":
                queue = self.system.queue()
                return Source("SQS FIFO", ("--queue", queue), lambda n: self.system.send(queue, self.message(n)))
            case _:
                return Source("SQLite queue", (), lambda n: self._send(worker, n))

    def _read(self, kind: str, address: str, put: Callable[[int], None]) -> Source:
        return Source(kind, ("--source", address), put)

    def _append(self, file: Path, number: int) -> None:
        with file.open("ab") as opened:
            opened.write(self.activity(number) + b"\n")

    def message(self, number: int) -> bytes:
        """A message to score somebody on demand."""
        return json.dumps({"globalUserId": f"{self.prefix}{number}"}).encode()

    def _send(self, worker: str, number: int) -> None:
        known = worker_named(worker)
        # Those of another shape than their worker's become dead letters: worked off is worked off.
        body = json.dumps({"users": [f"{self.prefix}{number}"], "rescoreId": f"r{number}"}).encode()
        entry = self.message(number) if known.kind is Kind.SCORE else body
        queue = open_queue(self.store.address, "store", known.queue_name, 60_000)
        queue.send([QueueEntry(f"g{number}", f"{worker}-{number}", entry)])

    def worked_off(self, worker: str) -> int:
        """How many messages had an effect: queued, written or given up on."""
        sent = self.store.sent() if worker_named(worker).kind is Kind.ENQUEUE else 0
        return sent + self.store.scores() + len(self.store.dead_letters())


@pytest.fixture
def place(server: Callable[[str], None], system: System, store: Store, tmp_path: Path) -> Place:
    for name in ("unleash", "kafka", "kinesalite", "elasticmq", "pubsub"):
        server(name)
    made = Place(system, store, tmp_path, f"fan-identity-{uuid.uuid4().hex[:12]}.")
    address = f"unleash+http://{UNLEASH}/api?prefix={made.prefix}"
    system.use(store=store.address, flags=address, batch_size="20")
    return made


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest) -> Iterator[list[tuple[str, str, list[int], list[int]]]]:
    """Collects what is measured, and prints it as a table at the end."""
    rows: list[tuple[str, str, list[int], list[int]]] = []
    yield rows
    lines = [f"\n{'from the toggle to the effect, ms':<28}{'source':<18}{'stops':>16}{'starts again':>16}"]
    for worker, kind, stops, starts in rows:
        lines.append(f"{worker:<28}{kind:<18}{' '.join(map(str, stops)):>16}{' '.join(map(str, starts)):>16}")
    capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        sys.stdout.write("\n".join(lines) + "\n")


class Feeding:
    """Puts message after message while in the block, at most every 20 ms."""

    def __init__(self, put: Callable[[int], None]) -> None:
        self.number = 0
        self._put = put
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._put(self.number)
            self.number += 1
            self._ended.wait(0.02)

    def some_more(self, number: int) -> None:
        """Returns when so many more messages were put."""
        enough = self.number + number
        until(lambda: self.number >= enough)

    def __enter__(self) -> "Feeding":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(PATIENCE)


def start(cli: CommandLine, place: Place, worker: str, source: Source) -> Running:
    environment = place.system.env | {TOKEN_ENV: TOKEN, "FAN_IDENTITY_LOG_LEVEL": "info"}
    return cli.start("run", worker, *source.arguments, "--streaming", "--json", env=environment)


def last_effect(running: Running, effects: Callable[[], int]) -> float:
    """When effects ended, on the monotonic clock."""
    seen, changed = effects(), time.monotonic()
    while time.monotonic() - changed < QUIET_SECONDS:
        assert running.code is None, running.err
        now = effects()
        if now != seen:
            seen, changed = now, time.monotonic()
        time.sleep(0.002)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("worker", STREAM_WORKERS)
def test_a_toggle_stops_and_starts_every_worker(
    cli: CommandLine, place: Place, worker: str, measured: list[tuple[str, str, list[int], list[int]]]
):
    source = place.source(worker)
    toggle = Toggle(share=100, worker=worker, prefix=place.prefix)
    toggle.switch("on")
    running = start(cli, place, worker, source)
    stops: list[int] = []
    starts: list[int] = []

    def effects() -> int:
        return place.worked_off(worker)

    with Feeding(source.put) as fed:
        running.until(lambda: effects() > 5, "it works")
        for _ in range(2):
            asked = time.monotonic()
            toggle.switch("off")
            ended = last_effect(running, effects)
            stops.append(max(0, round(1_000 * (ended - asked))))
            before, waiting = effects(), fed.number
            assert waiting > before, "messages come while it is off"
            asked = time.monotonic()
            toggle.switch("on")
            running.until(lambda before=before: effects() > before, "it works again")
            starts.append(round(1_000 * (time.monotonic() - asked)))
    running.until(lambda: effects() >= fed.number, f"all {fed.number} that waited were worked off")
    running.signal(signal.SIGTERM)
    counts = running.wait().json
    assert counts["skipped"] == 2, "pauses, not polls"
    if worker_named(worker).kind is Kind.ENQUEUE:  # a log may deliver twice, and a standard queue keeps both
        assert {message["activityId"] for message in place.store.messages()} == {f"a{n}" for n in range(fed.number)}
    measured.append((worker, source.kind, stops, starts))
    assert max(stops + starts) < MOST_MS
    toggle.archive()


@pytest.mark.slow
def test_ten_toggles_under_load_lose_nothing(cli: CommandLine, place: Place):
    """A followed file through both halves, switched off and on at any time; each user's order is kept."""
    halves = ("enqueueFromSQJourneyStream", "scoreUsers")
    source = place.source(halves[0])
    toggles = [Toggle(share=100, worker=worker, prefix=place.prefix) for worker in halves]
    for toggle in toggles:
        toggle.switch("on")
    running = [start(cli, place, halves[0], source), start(cli, place, halves[1], Source("", (), source.put))]
    rng = random.Random(7)
    with Feeding(source.put) as fed:
        running[1].until(lambda: place.store.scores() > 5, "both halves work")
        for turn in range(10):
            chosen = rng.randrange(2)
            running[chosen].until(
                lambda one=chosen: running[one].err.count(OFF) == running[one].err.count(ON), "it is on"
            )
            pauses = running[chosen].err.count(OFF)
            toggles[chosen].switch("off")
            if turn % 2:  # every other one is switched on again at some time, be it before it was felt
                fed.some_more(rng.randrange(60))
            else:
                running[chosen].until(lambda one=chosen, seen=pauses: running[one].err.count(OFF) > seen, "it pauses")
            toggles[chosen].switch("on")
            fed.some_more(rng.randrange(60))
    running[1].until(lambda: place.store.scores() == fed.number, "every activity is scored")
    paused = 0
    for one in running:
        one.signal(signal.SIGTERM)
        result = one.wait()
        assert result.code == 0
        paused += result.json.get("skipped", 0)
    assert 5 <= paused <= 10
    assert place.store.dead_letters() == []
    assert place.store.waiting() == 0
    for user, ids in place.store.ids_by_user().items():
        numbers = [int(one.removeprefix("a")) for one in ids]
        assert numbers == sorted(set(numbers)), user
    for toggle in toggles:
        toggle.archive()


def pause_and_go_on(running: Running, toggle: Toggle, effects: Callable[[], int]) -> tuple[int, int]:
    """Switches off and on in the midst of work; how long each took to be felt, ms."""
    asked = time.monotonic()
    toggle.switch("off")
    stopped = round(1_000 * (last_effect(running, effects) - asked))
    before, asked = effects(), time.monotonic()
    toggle.switch("on")
    running.until(lambda: effects() > before, "it goes on")
    return max(0, stopped), round(1_000 * (time.monotonic() - asked))


@pytest.mark.slow
@pytest.mark.parametrize("job", ["run", "backfill", "request"])
def test_a_job_pauses_in_its_midst(
    cli: CommandLine, place: Place, job: str, measured: list[tuple[str, str, list[int], list[int]]], tmp_path: Path
):
    number, rescored, before = 60_000, 400, 0
    worker = "processRescoreEvents" if job == "request" else "enqueueFromStream"
    toggle = Toggle(share=100, worker=worker, prefix=place.prefix)
    toggle.switch("on")
    environment = place.system.env | {TOKEN_ENV: TOKEN, "FAN_IDENTITY_RESCORE_RATE": "50"}
    if job == "request":
        queue = open_queue(place.store.address, "store", "rescoreQueue", 60_000)
        users = [f"{place.prefix}{one}" for one in range(rescored)]
        known = tmp_path / "known.jsonl"
        known.write_bytes(b"".join(place.activity(one, users[one]) + b"\n" for one in range(rescored)))
        assert cli("score", known, *place.store.flag).code == 0
        before = place.worked_off(worker)
        queue.send([QueueEntry("g", "r", json.dumps({"users": users, "rescoreId": "r"}).encode())])
        running = cli.start("run", worker, "--json", env=environment)
    else:
        file = tmp_path / "activities.jsonl"
        file.write_bytes(b"".join(place.activity(one) + b"\n" for one in range(number)))
        running = cli.start(job, worker, "--source", file, "--json", env=environment)

    def effects() -> int:
        return place.worked_off(worker) - before

    running.until(lambda: effects() > 10, "it works")
    stopped, started = pause_and_go_on(running, toggle, effects)
    result = running.wait()
    assert effects() == (rescored if job == "request" else number), result
    assert result.code == 0
    counts = result.json
    assert counts.get("counts", counts)["skipped"] == 1
    measured.append((worker, f"{job}, in its midst", [stopped], [started]))
    assert max(stopped, started) < MOST_MS
    toggle.archive()


def test_the_lambda_answers_skipped(
    place: Place, monkeypatch: pytest.MonkeyPatch, measured: list[tuple[str, str, list[int], list[int]]]
):
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    worker = worker_named("enqueueFromStream")
    toggle = Toggle(share=100, worker=worker.name, prefix=place.prefix)
    settings = load_settings(store=place.store.address, flags=place.system.settings["flags"])
    event = {"eventSource": "aws:kafka", "records": {"activities-0": []}}
    took: dict[bool, list[int]] = {True: [], False: []}
    for state in ("on", "off", "on", "off"):
        asked = time.monotonic()
        toggle.switch(state)
        skipped = state == "off"
        until(lambda skipped=skipped: (answer(event, None, worker, settings) == {"skipped": True}) is skipped)
        took[skipped].append(round(1_000 * (time.monotonic() - asked)))
    measured.append((worker.name, "Lambda event", took[True], took[False]))
    open_flags(settings.flags, settings.flags_default, settings.flags_folder).close()
    toggle.archive()


def test_the_debug_toggle_and_the_signal_are_felt_by_workers(cli: CommandLine, place: Place):
    """By the process of a worker, and by each of the worker processes it starts."""
    toggles = [Toggle(worker=name, prefix=place.prefix) for name in ("debug", "enqueueFromSQJourneyStream")]
    toggles[1].switch("on")
    source = place.source("enqueueFromSQJourneyStream")
    source.put(0)
    arguments = ("run", "enqueueFromSQJourneyStream", *source.arguments)
    environment = place.system.env | {TOKEN_ENV: TOKEN, "FAN_IDENTITY_LOG_LEVEL": "error"}
    running = cli.start(*arguments, "--streaming", env=environment)
    running.until(lambda: place.store.sent() == 1, "it works")
    for state, text in (("on", "switched on by the flag"), ("off", "switched off by the flag")):
        toggles[0].switch(state)
        running.until(lambda text=text: text in running.err, text)
    for text in ("switched on by the signal", "switched off by the signal"):
        running.signal(signal.SIGUSR2)
        running.until(lambda text=text: text in running.err, text)
    running.signal(signal.SIGTERM)
    assert running.wait().code == 0
    toggles[0].switch("on")
    processes = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    result = cli(*arguments, "--", *processes, env=environment)
    assert result.code == 0
    told = [json.loads(line) for line in result.err.splitlines() if "switched on by the flag" in line]
    assert len({line["requestId"] for line in told}) >= 2, "the command, and the process that did the work"
    for toggle in toggles:
        toggle.archive()
