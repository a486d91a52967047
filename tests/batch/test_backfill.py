"""Backfills: the tables a stream would have left, whatever order and format, killed, resumed, beside newer scores."""

import csv
import gzip
import io
import json
import random
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from fan_identity.io.files import plan_ranges
from fan_identity.transforms.backfill import part_of

ANY_AGE = {"FAN_IDENTITY_HORIZON": "36500d"}
SHORT_HORIZON = {"FAN_IDENTITY_HORIZON": "1h"}
FLAT = ("activityId", "activityType", "occurredAt", "globalUserId", "memberId", "eventId", "saleId")
INSIDE = {"ipAddress": "context", "deviceId": "context", "userAgent": "context", "outcome": "attributes"}


@pytest.fixture(scope="module")
def lines(sale) -> list[bytes]:
    return sale(150, 12, seed=7, late=0.15, duplicates=0.03, malformed=0.004)


def shuffled(lines: list[bytes], seed: int) -> list[bytes]:
    return random.Random(seed).sample(lines, len(lines))


def flat(line: bytes) -> dict[str, Any] | None:
    """A line as a row; None for what only JSON lines can hold."""
    try:
        fields = json.loads(line)
        if "T" not in str(fields["occurredAt"]) or not isinstance(fields["activityId"], str):
            return None
        row = {name: fields.get(name) for name in FLAT}
        row["occurredAt"] = str(row["occurredAt"])
        return row | {name: (fields.get(place) or {}).get(name) for name, place in INSIDE.items()}
    except (ValueError, TypeError, KeyError):
        return None


def jsonl(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def archive(folder: Path, lines: list[bytes]) -> Path:
    """The lines in five files of as many formats; what is no row goes among the JSON lines."""
    folder.mkdir()
    parts = [lines[number::5] for number in range(5)]
    rows = {number: [row for line in parts[number] if (row := flat(line))] for number in (3, 4)}
    parts[0] += [line for number in (3, 4) for line in parts[number] if flat(line) is None]
    (folder / "1.jsonl.gz").write_bytes(gzip.compress(jsonl(parts[0])))
    (folder / "2.jsonl.zst").write_bytes(zstandard.compress(jsonl(parts[1])))
    (folder / "deeper").mkdir()
    (folder / "deeper" / "3.ndjson").write_bytes(jsonl(parts[2]))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FLAT, *INSIDE])
    writer.writeheader()
    writer.writerows(rows[3])
    (folder / "4.csv.gz").write_bytes(gzip.compress(text.getvalue().encode()))
    pq.write_table(pa.Table.from_pylist(rows[4]), folder / "5.parquet", row_group_size=100)
    (folder / "_SUCCESS").write_bytes(b"")
    return folder


def backfill(cli, store, *arguments: object, codes=(0, 1), env=None, worker: str = "enqueueFromStream") -> Any:
    result = cli("backfill", worker, *arguments, *store.flag, "--json", env=env)
    assert result.code in codes, result
    return result.json


def state(store) -> tuple[Any, ...]:
    letters = sorted(payload for _, _, payload in store.dead_letters())
    return store.dump(), letters, store.scores()


@pytest.fixture(scope="module")
def undisturbed(lines, store_at, tmp_path_factory) -> tuple[Any, ...]:
    """What ``score`` leaves of the lines in the order they arrived, and how many messages that were."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "sale.jsonl").write_bytes(jsonl(lines))
    store = store_at(folder / "fans.db")
    books = store.score(folder / "sale.jsonl")
    assert books["deduplicated"] > 20
    assert books["deadLetteredTotal"] > 2
    return (*state(store), books)


def stream(cli, store, source: Path) -> None:
    """Both workers, streaming, one after the other: so the stream's profiles too are of the whole input."""
    run = cli.start("run", "enqueueFromStream", "--source", source, *store.flag, "--streaming", env=ANY_AGE)
    end = f":{source.stat().st_size}"
    run.until(lambda: any(at.endswith(end) for (at,) in store.query("SELECT position FROM positions")), "all was read")
    run.signal(signal.SIGINT)
    assert run.wait().code in (0, 1)
    run = cli.start("run", "scoreUsers", *store.flag, "--streaming", env=ANY_AGE)
    run.until(lambda: store.waiting() == 0, "all were scored")
    run.signal(signal.SIGINT)
    assert run.wait().code == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_streamed_and_backfilled_the_tables_are_identical(cli, make_store, lines, undisturbed, tmp_path, seed):
    dump, letters, scores, books = undisturbed
    streamed, filled = make_store("streamed"), make_store("filled")
    (tmp_path / "stream.jsonl").write_bytes(jsonl(shuffled(lines, seed)))
    stream(cli, streamed, tmp_path / "stream.jsonl")
    folder = archive(tmp_path / "archive", shuffled(lines, seed + 100))
    done = backfill(cli, filled, "--source", folder, "--score-with", "scoreUsers", env=SHORT_HORIZON)
    assert state(streamed) == state(filled) == (dump, letters, scores)
    counts = done["counts"]
    assert (counts["read"], counts["files"], done["unaccounted"]) == (len(lines), 5, 0)
    assert counts["scored"] == scores + books["deduplicated"], "copies are scored again, into the same item"
    assert {name: number for name, number in counts.items() if name.startswith("rejected.")} == {
        f"rejected.{reason}": number for reason, number in books["rejected"].items()
    }, "nothing is too old for a backfill"


def test_through_the_queue_the_tables_are_identical_too(cli, store, lines, undisturbed, tmp_path):
    folder = archive(tmp_path / "archive", shuffled(lines, 9))
    done = backfill(cli, store, "--source", f"{folder}/**/*", env=SHORT_HORIZON)
    assert done["counts"]["enqueued"] == undisturbed[3]["enqueued"] == store.waiting()
    assert done["unaccounted"] == 0
    assert cli("run", "scoreUsers", *store.flag).code == 0
    assert state(store) == undisturbed[:3]


def cut(folder: Path, lines: list[bytes], files: int) -> Path:
    folder.mkdir()
    for number in range(files):
        (folder / f"{number:02d}.jsonl.gz").write_bytes(gzip.compress(jsonl(lines[number::files])))
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_it_goes_on_and_ends_the_same(cli, store, lines, undisturbed, tmp_path, seed):
    rng = random.Random(seed)
    folder = cut(tmp_path / "archive", shuffled(lines, seed), 12)
    arguments = ("backfill", "enqueueFromStream", "--source", folder, "--score-with", "scoreUsers", *store.flag)
    scores = undisturbed[2]
    kept = store_count(store, "SELECT count(*) FROM positions")
    for share in sorted(rng.uniform(0.05, 0.95) for _ in range(3)):
        run = cli.start(*arguments, env={"FAN_IDENTITY_BATCH_SIZE": str(rng.choice((7, 30)))})
        run.until(lambda wanted=share: store.scores() >= wanted * scores, f"{share:.2f} were scored")
        assert run.kill() == -signal.SIGKILL, "it was to be killed, not to be done"
    parts = kept()
    assert 12 <= parts < 24, "observed wholly, scored in part"
    result = cli(*arguments, "--json")
    counts = result.json["counts"]
    assert counts["parts_done_before"] == parts - 12 > 0
    assert f"an earlier run did {parts - 12} of 12 parts: they were not read again" in result.err
    assert (0 < counts["read"] < len(lines), result.json["unaccounted"]) == (True, 0)
    assert state(store) == undisturbed[:3], "lost 0, duplicates 0"
    again = cli(*arguments, "--json")
    assert (again.code, again.json["outcome"], again.json["counts"]["read"]) == (0, "nothing to do", 0)
    assert "nothing was read" in again.err


def test_killed_while_it_enqueues_it_goes_on_and_ends_the_same(cli, store, lines, undisturbed, tmp_path):
    folder = cut(tmp_path / "archive", lines, 12)
    arguments = ("backfill", "enqueueFromStream", "--source", folder, *store.flag, "--json")
    run = cli.start(*arguments, env={"FAN_IDENTITY_BATCH_SIZE": "7"})
    run.until(lambda: store.sent() > 0.5 * undisturbed[2], "half was enqueued")
    assert run.kill() == -signal.SIGKILL
    books = cli(*arguments).json
    assert books["unaccounted"] == 0
    assert 0 < books["counts"]["parts_done_before"] < 12
    assert cli("run", "scoreUsers", *store.flag).code == 0
    assert state(store) == undisturbed[:3]


def store_count(store, sql: str):
    def counted() -> int:
        return store.number(sql) if store.path.exists() else 0

    return counted


def test_asked_to_stop_it_says_how_to_go_on(cli, store, lines, undisturbed, tmp_path):
    folder = cut(tmp_path / "archive", lines, 6)
    arguments = ("backfill", "enqueueFromStream", "--source", folder, "--score-with", "scoreUsers", *store.flag)
    run = cli.start(*arguments, "--json", env={"FAN_IDENTITY_BATCH_SIZE": "7"})
    run.until(lambda: store.scores() > 100, "some were scored")
    run.signal(signal.SIGTERM)
    result = run.wait()
    assert (result.code, result.json["outcome"], result.json["unaccounted"]) == (130, "interrupted", 0)
    assert result.err.startswith("stopped: run the same command again to finish")
    assert cli(*arguments).code == 1
    assert state(store) == undisturbed[:3]


def activity(number: int, user: str, hour: int) -> bytes:
    fields = {"activityId": f"a-{number}", "activityType": "login", "occurredAt": f"2026-01-01T{hour:02d}:00:00Z"}
    return json.dumps({**fields, "globalUserId": user}).encode()


def test_live_scores_that_are_newer_stay_and_older_ones_are_replaced(cli, store, tmp_path):
    live, past = tmp_path / "live.jsonl", tmp_path / "past.jsonl"
    live.write_bytes(jsonl([activity(1, "ahead", 20), activity(2, "behind", 1)]))
    past.write_bytes(jsonl([activity(3, "ahead", 10), activity(4, "behind", 10), activity(5, "only-past", 10)]))
    store.score(live)
    before = items(store)
    backfill(cli, store, "--source", past, "--score-with", "scoreUsers")
    after = items(store)
    assert after["USER#ahead", "LATEST"] == before["USER#ahead", "LATEST"], "untouched, the time of writing included"
    assert after["USER#behind", "LATEST"]["activityId"] == "a-4"
    assert after["USER#only-past", "LATEST"]["activityId"] == "a-5"
    assert len([key for key in after if key[1].startswith("SCORE#")]) == 5, "every score of the past is kept"
    cached = dict(store.query("SELECT key, version FROM arm_cache"))
    assert cached["user:ahead"].endswith("#a-1")
    assert cached["user:behind"].endswith("#a-4")


def items(store) -> dict[tuple[str, str], dict[str, Any]]:
    return {(pk, sk): json.loads(body) for pk, sk, body in store.query("SELECT pk, sk, body FROM items")}


def test_an_outage_ends_it_and_the_same_command_goes_on(cli, store, lines, undisturbed, tmp_path):
    folder = cut(tmp_path / "archive", lines, 3)
    arguments = ("--source", folder, "--score-with", "scoreUsers")
    nowhere = {"FAN_IDENTITY_MODEL": "http://127.0.0.1:9/score?timeout=1&deadline=1"}
    result = cli("backfill", "enqueueFromStream", *arguments, *store.flag, env=nowhere)
    assert result.code == 3, result
    assert "it goes on where it was" in result.err
    assert store.scores() == 0
    assert store.dead_letters() == [], "an outage is no reason to give records up"
    backfill(cli, store, *arguments)
    assert state(store) == undisturbed[:3]


def change(user: str, number: int) -> bytes:
    image = {
        "PK": {"S": f"USER#{user}"},
        "SK": {"S": f"ARAI#{number}"},
        "type": {"S": "arai"},
        "globalUserId": {"S": user},
        "dateUpdated": {"N": str(1_750_000_000_000 + number)},
        "araiResponse": {"M": {"features": {"M": {}}}},
    }
    return json.dumps({"eventName": "INSERT", "dynamodb": {"NewImage": image}}).encode()


def test_archived_arai_changes_are_scored(cli, store, tmp_path):
    other = json.dumps({"eventName": "REMOVE", "dynamodb": {}}).encode()
    lines = [*(change(f"u{number % 7}", number) for number in range(50)), other, b"{"]
    (tmp_path / "changes.jsonl.gz").write_bytes(gzip.compress(jsonl(lines)))
    books = backfill(cli, store, "--source", tmp_path / "changes.jsonl.gz", worker="scoreUsers")
    assert books["counts"]["scored"] == store.scores() == 50
    assert books["counts"]["rejected.other_change"] == books["counts"]["dead_lettered.malformed"] == 1
    assert books["unaccounted"] == 0


def test_another_name_or_another_file_is_done_again(cli, store, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_bytes(jsonl([activity(1, "u", 1)]))
    arguments = ("--source", source, "--score-with", "scoreUsers")
    reads = [backfill(cli, store, *arguments, *more)["counts"]["read"] for more in ((), (), ("--name", "again"))]
    assert reads == [1, 0, 1]
    source.write_bytes(jsonl([activity(1, "u", 1), activity(2, "u", 2)]))
    assert backfill(cli, store, *arguments)["counts"]["read"] == 2


def test_a_part_is_named_by_what_its_file_holds(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n' * 10)
    names = {part_of(part) for part in plan_ranges([str(path)], target_bytes=30)}
    assert len(names) == 3
    assert names == {part_of(part) for part in plan_ranges([str(path)], target_bytes=30)}
    path.write_bytes(b'{"a":2}\n' * 10)
    assert names.isdisjoint(part_of(part) for part in plan_ranges([str(path)], target_bytes=30))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("handleEvent", "--source", "a.jsonl"), "reads no stream; a backfill runs one of enqueueFromStream"),
        (("enqueueFromStream",), "--source: name what to read"),
        (("enqueueFromStream", "--source", "kafka://h/t", "--source", "a.jsonl"), "one stream, or files"),
        (("enqueueFromStream", "--source", "a.jsonl", "--from", "2026-01-01"), "files are read whole"),
        (("enqueueFromStream", "--source", "kafka://h/t", "--from", "tomorrow"), "--from: write a time as"),
        (
            ("enqueueFromStream", "--source", "kafka://h/t", "--from", "2026-01-02", "--to", "2026-01-01"),
            "has to lie before",
        ),
        (("enqueueFromStream", "--source", "kafka://h/t?start_offset=1", "--to", "2026-01-01"), "range of its own"),
        (("enqueueFromStream", "--source", "a.jsonl", "--score-with", "enqueueFromStream"), "--score-with"),
        (("scoreUsers", "--source", "a.jsonl", "--score-with", "scoreUsers"), "--score-with"),
        (("scoreUsers", "--source", "kafka://h/t"), "reads ARAI changes"),
        (("enqueueFromStream", "--source", "none-*.jsonl"), "matches no file"),
        (("enqueueFromStream", "--source", "empty"), "holds no files"),
        (("scoreUsers", "--source", "b.csv"), "reads change records, as JSON lines"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(cli, store, tmp_path, arguments, said):
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    (tmp_path / "b.csv").write_bytes(b"activityId,activityType,occurredAt,globalUserId\n")
    (tmp_path / "empty").mkdir()
    result = cli("backfill", *arguments, *store.flag, folder=tmp_path)
    assert result.code == 2, result
    assert len(result.err_lines) == 1
    assert said in result.err


def test_positions_of_live_workers_are_left_alone(cli, store, tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_bytes(jsonl([activity(1, "u", 1)]))
    backfill(cli, store, "--source", source)
    with sqlite3.connect(store.path) as connection:
        workers = {worker for (worker,) in connection.execute("SELECT worker FROM positions")}
    assert all(worker.startswith("backfill-") for worker in workers)


@pytest.fixture(params=["PrismRunner", "two processes"])
def beam(request) -> list[str]:
    """Flags of runners besides the usual one."""
    if request.param == "two processes":
        return ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    return ["--runner=PrismRunner", f"--prism_location={request.getfixturevalue('prism')}"]


def test_on_another_runner_it_ends_the_same(cli, store, lines, undisturbed, tmp_path, beam):
    folder = archive(tmp_path / "archive", shuffled(lines, 4))
    arguments = ("--source", folder, "--score-with", "scoreUsers", *store.flag, "--json")
    result = cli("backfill", "enqueueFromStream", *arguments, "--", *beam)
    assert (result.code, result.json["unaccounted"], result.json["counts"]["read"]) == (1, 0, len(lines)), result
    assert state(store) == undisturbed[:3]
    again = cli("backfill", "enqueueFromStream", *arguments, "--", *beam)
    assert (again.code, again.json["outcome"]) == (0, "nothing to do")
