"""Imports started by events: which import an event asks for, and what becomes of its message. The queue is SQLite's."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from fan_identity.batch.import_events import (
    Started,
    WatchQueue,
    address_to_import,
    kind_by_columns,
    kind_by_key,
    start_imports,
)
from fan_identity.domain.activity import MalformedRecordError
from fan_identity.domain.dead_letters import IMPORT_EVENTS
from fan_identity.domain.imports import ImportKind
from fan_identity.domain.s3_events import S3Object
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.leases import LeaseHeldError
from fan_identity.io.ports import QueueEntry
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters
from fan_identity.io.sqlite.queue import SqliteQueue
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.steps import MAX_RECEIVES

GOLDEN = Path(__file__).parents[1] / "golden" / "s3-events"
PREFIXES = {ImportKind.CLUSTER: "clusters/", ImportKind.BOT_OR_NOT: "bot-or-not/"}


def event(*keys):
    [record] = json.loads((GOLDEN / "multipart.json").read_text())["Records"]
    records = [{**record, "s3": {**record["s3"], "object": {"key": key, "size": 9}}} for key in keys]
    return json.dumps({"Records": records}).encode()


@dataclass
class Outcome:
    """What the start function of these tests returns: the one field that is looked at."""

    refused: str | None = None


@pytest.mark.parametrize(
    ("key", "address"),
    [
        ("clusters/a.parquet", "s3://b/clusters/a.parquet"),
        ("clusters/2026/_SUCCESS", "s3://b/clusters/2026/"),
        ("_SUCCESS", "s3://b/_SUCCESS"),
        ("clusters/x_SUCCESS", "s3://b/clusters/x_SUCCESS"),
    ],
)
def test_a_marker_stands_for_its_folder(key, address):
    assert address_to_import(S3Object("b", key, 1, 1)) == address
    assert address_to_import(S3Object("b", key, 1, 1), "region=x") == f"{address}?region=x"


@pytest.mark.parametrize(
    ("key", "prefixes", "kind"),
    [
        ("clusters/a", PREFIXES, ImportKind.CLUSTER),
        ("bot-or-not/a", PREFIXES, ImportKind.BOT_OR_NOT),
        ("clusters", PREFIXES, None),
        ("x/clusters/a", PREFIXES, None),
        ("clusters/a", {ImportKind.CLUSTER: "", ImportKind.BOT_OR_NOT: ""}, None),
        ("in/bon/a", {ImportKind.CLUSTER: "in/", ImportKind.BOT_OR_NOT: "in/bon/"}, ImportKind.BOT_OR_NOT),
    ],
)
def test_the_longest_prefix_tells_the_kind(key, prefixes, kind):
    assert kind_by_key(key, prefixes) is kind


def test_columns_tell_the_kind_where_keys_do_not(tmp_path):
    (tmp_path / "c.csv").write_text("globalUserId,clusterId\nf,c\n")
    (tmp_path / "b.jsonl").write_text('{"globalUserId":"f","bonScore":0.5}\n')
    (tmp_path / "n.csv").write_text("globalUserId,email\nf,c\n")
    assert kind_by_columns(str(tmp_path / "c.csv")) is ImportKind.CLUSTER
    assert kind_by_columns(str(tmp_path / "b.jsonl")) is ImportKind.BOT_OR_NOT
    with pytest.raises(UsageError, match=r"neither clusters nor bot-or-not scores: .*misses the column"):
        kind_by_columns(str(tmp_path / "n.csv"))


class AlreadyImportedError(UsageError):
    pass


def already(error):
    return isinstance(error, AlreadyImportedError)


def test_an_event_starts_each_of_its_imports_once():
    started = []

    def start(kind, addresses):
        started.append((kind, addresses))
        return Outcome()

    body = event("clusters/1/part-0", "clusters/1/_SUCCESS", "bot-or-not/x.csv", "clusters/1/_SUCCESS")
    assert len(start_imports(body, PREFIXES, start, already).outcomes) == 3
    assert started == [
        (ImportKind.CLUSTER, ["s3://partner-drops/clusters/1/part-0"]),
        (ImportKind.CLUSTER, ["s3://partner-drops/clusters/1/"]),
        (ImportKind.BOT_OR_NOT, ["s3://partner-drops/bot-or-not/x.csv"]),
    ]
    assert start_imports((GOLDEN / "test-event.json").read_bytes(), PREFIXES, start, already) == Started()
    with pytest.raises(MalformedRecordError):
        start_imports(b"{}", PREFIXES, start, already)


def test_a_key_names_a_file_and_no_options():
    hostile = S3Object("b", "clusters/a.csv?endpoint=http://elsewhere:80", 1, 1)
    with pytest.raises(UsageError, match=r"^s3://b/clusters/a\.csv\?endpoint.*question mark.*rename it$"):
        address_to_import(hostile)


class Watched:
    """A queue with one message that is watched with a start function that does as told, call after call."""

    def __init__(self, tmp_path, *answers):
        self.store = SqliteStore(tmp_path / "s.db")
        self.now = 1_000_000
        self.queue = SqliteQueue(self.store, "q", clock_ms=lambda: self.now)
        self.letters = SqliteDeadLetters(self.store)
        self.ended = threading.Event()
        self.answers = list(answers)
        self.calls = 0

    def run(self, *bodies):
        self.queue.send([QueueEntry(f"g{n}", f"d{n}", body) for n, body in enumerate(bodies)])
        watch = WatchQueue(
            self, self.letters, "sqs://drops?region=eu-west-1", PREFIXES, self.start, already
        )  # fmt: skip
        return watch.run(self.ended)

    def start(self, kind, addresses):
        answer = self.answers[min(self.calls, len(self.answers) - 1)]
        self.calls += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    # The queue, which ends the watching once it is empty; time passes while nothing can be received.

    def receive(self, limit):
        received = self.queue.receive(limit)
        if not received and not self.queue.depth():
            self.ended.set()
        while not received and not self.ended.is_set():
            self.now += 60_000
            received = self.queue.receive(limit)
        return received

    def delete(self, receipts):
        self.queue.delete(receipts)

    def release(self, receipts, delay_ms):
        self.queue.release(receipts, delay_ms)


def test_messages_are_deleted_after_their_imports(tmp_path):
    watched = Watched(tmp_path, Outcome())
    counts = watched.run(event("clusters/a"), event("clusters/b", "clusters/c"))
    assert counts == {"messages": 2, "imports": 3, "again": 0}
    assert watched.queue.depth() == 0
    assert watched.letters.count() == 0


@pytest.mark.parametrize(
    ("answer", "reason", "error"),
    [
        (UsageError("f.csv: misses the column clusterId"), "import_refused", "f.csv: misses the column clusterId"),
        (Outcome("30 % of fans are unknown"), "import_refused", "30 % of fans are unknown"),
    ],
)
def test_what_is_refused_is_a_dead_letter(tmp_path, answer, reason, error):
    watched = Watched(tmp_path, answer, Outcome())
    body = event("clusters/a")
    counts = watched.run(body, event("clusters/b"))
    assert counts["imports"] == 1 + (not isinstance(answer, Exception))
    assert counts[f"dead_lettered.{reason}"] == 1
    [stored] = watched.letters.select()
    assert (stored.letter.worker, stored.letter.reason, stored.letter.error) == (IMPORT_EVENTS, reason, error)
    assert (stored.letter.payload, stored.letter.source) == (body, "sqs://drops")
    assert watched.queue.depth() == 0


def test_what_is_no_event_is_a_dead_letter(tmp_path):
    watched = Watched(tmp_path, Outcome())
    counts = watched.run(b'{"activityId":"a"}', event("clusters/a"))
    assert counts == {"messages": 2, "imports": 1, "again": 0, "dead_lettered.malformed": 1}
    assert [stored.letter.payload for stored in watched.letters.select()] == [b'{"activityId":"a"}']


def test_files_imported_before_are_done(tmp_path):
    watched = Watched(tmp_path, AlreadyImportedError("imported before"))
    assert watched.run(event("clusters/a")) == {"messages": 1, "imports": 0, "again": 0}
    assert watched.letters.count() == watched.queue.depth() == 0


def test_an_event_that_failed_half_way_goes_on_behind_what_is_imported(tmp_path):
    away = BackendUnavailableError("away")
    watched = Watched(tmp_path, Outcome(), away, AlreadyImportedError("imported before"), Outcome())
    assert watched.run(event("clusters/a", "clusters/b")) == {"messages": 2, "imports": 1, "again": 1}
    assert watched.calls == 4  # b was started again, and is imported now
    assert watched.letters.count() == watched.queue.depth() == 0


def test_a_file_that_does_not_fit_stops_none_behind_it(tmp_path):
    watched = Watched(tmp_path, UsageError("a.csv: misses the column clusterId"), Outcome())
    counts = watched.run(event("clusters/a", "clusters/b?", "clusters/c"))
    assert counts == {"messages": 1, "imports": 1, "again": 0, "dead_lettered.import_refused": 1}
    [stored] = watched.letters.select()
    assert "misses the column clusterId; " in stored.letter.error
    assert "question mark" in stored.letter.error


@pytest.mark.parametrize("failures", [1, MAX_RECEIVES - 1])
def test_what_may_work_later_is_tried_again(tmp_path, failures):
    problems = [LeaseHeldError("another runs"), BackendUnavailableError("away")] * failures
    watched = Watched(tmp_path, *problems[:failures], Outcome())
    assert watched.run(event("clusters/a")) == {"messages": failures + 1, "imports": 1, "again": failures}
    assert watched.letters.count() == watched.queue.depth() == 0


def test_after_many_tries_it_is_a_dead_letter(tmp_path):
    watched = Watched(tmp_path, LeaseHeldError("another runs"))
    counts = watched.run(event("clusters/a"))
    assert counts["again"] == MAX_RECEIVES - 1
    [stored] = watched.letters.select()
    assert (stored.letter.reason, stored.letter.attempts) == ("import_unavailable", MAX_RECEIVES)


def test_a_defect_is_no_dead_letter_and_the_message_stays(tmp_path):
    watched = Watched(tmp_path, ValueError("a defect"))
    with pytest.raises(ValueError, match="a defect"):
        watched.run(event("clusters/a"))
    assert watched.queue.depth() == 1
    assert watched.letters.count() == 0
