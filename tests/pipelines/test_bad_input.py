"""What nobody wants to get, through the command line: each ends in a count, a dead letter, or one clear line."""

import contextlib
import fcntl
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

START_MS = 1_718_355_600_000
BATCHES_OF_20 = {"FAN_IDENTITY_BATCH_SIZE": "20"}


def activity(activity_id: str, user: Any = "fan", **fields: Any) -> bytes:
    named = {"activityId": activity_id, "globalUserId": user, "activityType": "login", "occurredAt": START_MS}
    return json.dumps({**named, **fields}).encode()


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def assert_refused(result, code: int, *words: str) -> None:
    """One clear line and the right exit code; nothing on standard output."""
    assert result.code == code, result
    assert len(result.err_lines) == 1, result.err
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    assert result.out == b""
    for word in words:
        assert word in result.err


def assert_dead_letters(store, lines: list[bytes], reason: str = "malformed") -> list[dict[str, Any]]:
    """Each of the lines is a dead letter, and ``--raw`` gives back exactly its bytes."""
    listed = store.cli("dead-letters", "list", *store.flag, "--json", "--limit", "1000")
    assert (listed.code, listed.err) == (0, "")
    letters = [json.loads(line) for line in listed.out.splitlines()]
    assert {letter["reason"] for letter in letters} == {reason}
    assert sorted(payload for _, _, payload in store.dead_letters()) == sorted(lines)
    for letter in letters[:: max(1, len(letters) // 5)]:
        shown = store.cli("dead-letters", "show", letter["deadLetterId"], *store.flag, "--raw")
        assert (shown.code, shown.err) == (0, "")
        ((payload,),) = store.query("SELECT payload FROM dead_letters WHERE dead_letter_id = ?", letter["deadLetterId"])
        assert shown.out == payload
    return letters


def assert_all_dead(store, source: Path, bad: list[bytes], reason: str = "malformed", **options: Any) -> None:
    """Scores a file of bad records and a good one: the good one has its score, the others are dead letters."""
    result = store.cli("score", source, *store.flag, "--json", **options)
    assert result.code == 1, result
    assert result.err_lines == [f"{len(bad)} dead letters; look at them with: {hint(store)}"]
    books = result.json
    assert (books["read"], books["scored"], books["unaccounted"]) == (len(bad) + 1, 1, 0)
    assert books["deadLettered"] == {reason: len(bad)}
    assert_dead_letters(store, bad, reason)


def hint(store) -> str:
    return f"fan-identity dead-letters list --store {store.address}"


# Records


def test_truncated_json_becomes_a_dead_letter_with_its_bytes(store, tmp_path):
    whole = activity("whole", context={"ipAddress": "10.0.0.1"}, note="größer")
    bad = [whole[:length] for length in range(1, len(whole), 17)]
    assert_all_dead(store, write(tmp_path / "a.jsonl", whole, *bad), bad)


def test_wrong_types_become_dead_letters(store, tmp_path):
    bad = [
        activity("a", activityId=7),
        activity("b", activityType=None),
        activity("c", user=["fan"]),
        activity("d", user=7),
        activity("e", occurredAt=True),
        activity("f", occurredAt={"ms": 1}),
        activity("g", occurredAt="yesterday"),
        activity("h", context=["10.0.0.1"]),
        activity("i", context={"ipAddress": 10}),
        activity("j", attributes="outcome"),
        activity("  "),
        b"[]",
        b'"activity"',
        b"7",
        b"null",
        b"{}",
    ]
    assert_all_dead(store, write(tmp_path / "a.jsonl", activity("good"), *bad), bad)


def test_bytes_that_are_no_text_become_dead_letters(store, tmp_path):
    bad = [
        activity("a").replace(b"fan", b"\xff\xfe"),
        activity("b").replace(b"fan", b"\xed\xa0\x80"),  # a surrogate in UTF-8
        b"\0" * 20,
        b"\x1b[31mred\x07",
        b"{" * 5_000,
        b'{"a":' * 5_000,
        activity("c", user="surrogate").replace(b"surrogate", b"\\ud800"),
    ]
    assert_all_dead(store, write(tmp_path / "a.jsonl", activity("good"), *bad), bad)


def test_nan_and_infinity_become_dead_letters(store, tmp_path):
    numbers = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"nan")
    bad = [activity("time").replace(str(START_MS).encode(), number) for number in numbers]
    bad += [activity("price", attributes={"price": 777}).replace(b"777", number) for number in numbers]
    assert_all_dead(store, write(tmp_path / "a.jsonl", activity("good"), *bad), bad)


def test_a_missing_user_is_a_counted_rejection(store, tmp_path):
    missing = json.loads(activity("a"))
    del missing["globalUserId"]
    source = write(
        tmp_path / "a.jsonl",
        *(json.dumps(missing).encode(), activity("b", None), activity("c", ""), activity("d", " \t")),
        activity("good"),
    )
    books = store.score(source)
    assert (books["read"], books["rejected"], books["scored"]) == (5, {"blank_user": 4}, 1)


def test_dates_in_1970_and_2099_are_counted_rejections(store, tmp_path):
    old = [0, 1, "1970-01-01T00:00:00Z", START_MS // 1_000, -1, "1969-12-31"]
    new = [4_070_908_800_000, "2099-06-01T10:00:00+02:00", "9999-12-31T23:59:59.999Z"]
    lines = [activity(f"{n}", occurredAt=when) for n, when in enumerate([*old, *new])]
    books = store.score(write(tmp_path / "a.jsonl", *lines, activity("good")))
    assert books["rejected"] == {"too_old": len(old), "in_future": len(new)}
    assert books["scored"] == 1


def test_unknown_fields_travel_along_in_the_message(store, cli, tmp_path):
    line = (
        b'{"sessionTrack" : [1, 2.50, {"x": null}],\t"activityId":"a","globalUserId":"fan","activityType":"login",'
        b'"occurredAt":1718355600000,"context":{"geo":{"country":"NZ"}},"\\u00fcber":"\\u00e9","big":12345678901234567890}'
    )
    enqueued = cli("run", "enqueueFromStream", "--source", write(tmp_path / "a.jsonl", line), *store.flag, "--json")
    assert enqueued.code == 0
    ((body,),) = store.query("SELECT body FROM messages")
    assert b'"activity":' + line in body, "byte for byte"
    scored = cli("run", "scoreUsers", *store.flag, "--json")
    assert scored.json == {"received": 1, "scored": 1, "worker": "scoreUsers"}


def test_csv_rows_that_cannot_be_read_keep_their_bytes(store, tmp_path):
    bad = [b"a,b", b'"open', b"a,fan,login,1,x,y,z", b"\xff,fan,login,1718355600000", b"n\0,fan,login,1718355600000"]
    header = b"activityId,globalUserId,activityType,occurredAt"
    source = write(tmp_path / "a.csv", header, b"good,fan,login,1718355600000", *bad)
    assert_all_dead(store, source, bad, "unreadable")


# Ids


def shown(store, user: str) -> dict[str, Any]:
    result = store.cli("show", user, *store.flag, "--json", "--limit", "100")
    assert (result.code, result.err) == (0, "")
    return result.json


LONG = "ø" * 5_000  # 10 kB
HOSTILE = [
    *("fan", "fan#", "fan#SCORE", "USER#fan", "USER#", "#", "user:fan", "LATEST", "fan ", "FAN", "fa", "%", "fan%"),
    *("fan\n", "fan\x1b[31m", "\x7f", "fan\u202e", "fan'; DROP TABLE items; --", "fan\\", '"fan"', "[bold]fan[/bold]"),
    *("-", "--help", "_an", "fan/../x", "sha256-fan", "e\u0301", "\u00e9", LONG, LONG + "x", LONG[:-1] + "o"),
    "sha256:" + hashlib.sha256(LONG.encode()).hexdigest(),
    "fan#SCORE#2024-06-14T09:00:00.000Z#0123456789abcdef",
]


def test_no_id_reaches_another_users_key(store, tmp_path):
    """Each hostile user acts a number of times that is its own, so any mix-up shows."""
    times = {user: number for number, user in enumerate(HOSTILE, 1)}
    lines = [
        activity(f"a-{number}-{n}", user, occurredAt=START_MS + 1_000 * n)
        for user, number in times.items()
        for n in range(number)
    ]
    random.Random(3).shuffle(lines)
    assert store.score(write(tmp_path / "a.jsonl", *lines))["scored"] == len(lines)
    assert len(store.item_keys()) == len(lines) + len(HOSTILE), "each user has one latest item"
    for user, number in times.items():
        if not user.startswith("-"):  # a flag to the command line, and what follows -- goes to Beam
            found = shown(store, user)
            assert {item["activityId"] for item in found["scores"]} == {f"a-{number}-{n}" for n in range(number)}
            assert {item["globalUserId"] for item in found["scores"]} == {user}
            assert found["latest"]["activityId"] == f"a-{number}-{number - 1}"


def test_neighbours_of_a_hostile_id_stay_unknown(store, cli, tmp_path):
    users = [user for user in HOSTILE if user != "fan"]
    store.score(write(tmp_path / "a.jsonl", *(activity(f"a-{n}", user) for n, user in enumerate(users))))
    for neighbour in ("fan", "fan\t", "USER", "LATEST#", LONG[:-1], "sha256:", "fan#SCORE#", "user:user:fan"):
        assert shown(store, neighbour) == {"globalUserId": neighbour, "latest": None, "scores": []}
        assert cli("arm", neighbour, *store.flag, "--json").json == {"data": {"armScore": None}}
    for user in users[::4]:
        assert cli("arm", user, *store.flag, "--json").json["data"]["armScore"] in range(1, 6)


def test_nul_in_ids_stays_inside_its_user(store, tmp_path):
    users = ["fan", "fan\0", "fan\0a", "\0fan", "fan\0\0", "\0"]
    lines = [
        activity(f"id\0{number}-{n}", user, occurredAt=START_MS + n)
        for number, user in enumerate(users, 1)
        for n in range(number)
    ]
    assert store.score(write(tmp_path / "a.jsonl", *lines))["scored"] == len(lines)
    scored = {user: len(ids) for user, ids in store.ids_by_user().items()}
    assert scored == {user: number for number, user in enumerate(users, 1)}
    assert len(store.item_keys()) == len(lines) + len(users)
    assert len(shown(store, "fan")["scores"]) == 1
    latest = [json.loads(line) for line in store.dump().splitlines() if b'"SK":"LATEST"' in line]
    assert {item["globalUserId"]: item["activityId"] for item in latest} == {
        user: f"id\0{number}-{number - 1}" for number, user in enumerate(users, 1)
    }


def test_an_argument_that_is_no_text_is_refused_in_one_line(store, cli, tmp_path):
    store.score(write(tmp_path / "a.jsonl", activity("a")))
    for command in ("arm", "show"):
        assert_refused(cli(command, os.fsdecode(b"fan\xff"), *store.flag), 2)


# Files


def test_an_empty_file_a_folder_and_a_missing_file_are_refused(store, cli, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    good = write(tmp_path / "good.jsonl", activity("a"))
    for name, words in (
        ("empty.jsonl", "is empty"),
        ("folder.jsonl", "is a directory"),
        ("missing.jsonl", "no such file"),
        ("pipe.jsonl", "not a regular file"),
        ("", "empty"),
        ("s3://bucket/a.jsonl", "s3://"),
        ("evil\n\x1b[31m.jsonl", "no such file"),
    ):
        path = tmp_path / name if name and "://" not in name else name
        assert_refused(cli("score", path, *store.flag), 2, words)
        assert_refused(cli("score", good, path, *store.flag), 2, words)
        if name != "missing.jsonl":
            assert_refused(cli("run", "enqueueFromStream", "--source", path, *store.flag), 2)
    assert store.scores() == store.waiting() == 0


def test_a_file_of_blank_lines_holds_no_records(store, tmp_path):
    books = store.score(write(tmp_path / "a.jsonl", b"", b" ", b"\r", b""))
    assert (books["read"], books["unaccounted"]) == (0, 0)


@pytest.fixture(scope="module")
def lines(sale) -> list[bytes]:
    return sale(300, 20, seed=8, malformed=0.0, duplicates=0.0)


@pytest.fixture
def stopped(store, cli) -> Callable[..., Any]:
    """Starts to score files and holds the run in its first half, when a part was read."""

    def start(*sources: Path, records: int) -> Any:
        run = cli.start("score", *sources, *store.flag, "--json", env=BATCHES_OF_20)
        run.until(lambda: store.sent() >= 20, "reading began")
        run.signal(signal.SIGSTOP)
        assert store.sent() < records / 2, "it was to be in the middle of reading"
        return run

    return start


def whole_dump(make_store, source: Path) -> bytes:
    other = make_store("whole")
    other.score(source)
    return other.dump()


def test_what_is_appended_while_a_file_is_read_waits_for_the_next_run(store, make_store, stopped, lines, tmp_path):
    source = write(tmp_path / "a.jsonl", *lines[:-300])
    with source.open("ab") as file:
        file.write(lines[-300][:30])  # a line that is being written
    run = stopped(source, records=len(lines))
    with source.open("ab") as file:
        file.write(b"".join([lines[-300][30:] + b"\n", *(line + b"\n" for line in lines[-299:])]))
    run.signal(signal.SIGCONT)
    result = run.wait()
    assert (result.code, result.err) == (0, "")
    assert result.json["read"] == len(lines) - 299, "the line that was incomplete is read to its end"
    assert store.score(source)["read"] == len(lines)
    assert store.dump() == whole_dump(make_store, source)


def test_a_file_truncated_while_it_is_read_ends_the_run_and_loses_nothing(store, make_store, stopped, lines, tmp_path):
    source = write(tmp_path / "a.jsonl", *lines)
    content = source.read_bytes()
    run = stopped(source, records=len(lines))
    os.truncate(source, len(content) // 2)
    run.signal(signal.SIGCONT)
    assert_refused(run.wait(), 3, "shrank")
    source.write_bytes(content)
    store.score(source)
    assert store.dump() == whole_dump(make_store, source)


def test_a_file_that_disappears_while_another_is_read_ends_the_run(store, make_store, stopped, lines, tmp_path):
    first, second = write(tmp_path / "1.jsonl", *lines[:-50]), write(tmp_path / "2.jsonl", *lines[-50:])
    run = stopped(first, second, records=len(lines))
    content = second.read_bytes()
    first.unlink()  # being read: what is open stays readable
    second.unlink()
    run.signal(signal.SIGCONT)
    assert_refused(run.wait(), 3, "2.jsonl", "was there when the run began")
    both = write(tmp_path / "3.jsonl", *lines[:-50])
    with both.open("ab") as file:
        file.write(content)
    store.score(both)
    assert store.dump() == whole_dump(make_store, both)


def test_a_file_replaced_while_another_is_read_ends_the_run(store, stopped, lines, tmp_path):
    first, second = write(tmp_path / "1.jsonl", *lines[:-50]), write(tmp_path / "2.jsonl", *lines[-50:])
    run = stopped(first, second, records=len(lines))
    write(second, *reversed(lines[-50:]))
    run.signal(signal.SIGCONT)
    assert_refused(run.wait(), 3, "2.jsonl", "replaced")


# Parquet


def table(**columns: list[Any]) -> Any:
    count = 2_000
    named = {
        "activityId": [f"a-{n}" for n in range(count)],
        "globalUserId": [f"user-{n % 50}" for n in range(count)],
        "activityType": ["login"] * count,
        "occurredAt": [START_MS + n for n in range(count)],
    }
    return pa.table({**named, **columns})


def test_parquet_with_other_columns_is_refused(store, cli, tmp_path):
    pq.write_table(pa.table({"city": ["Oslo"], "price\x1b[31m": [7]}), tmp_path / "other.parquet")
    assert_refused(cli("score", tmp_path / "other.parquet", *store.flag), 2, "misses the columns activityId", "city")
    pq.write_table(table(ipAddress=["x"] * 2_000, **{"context.ipAddress": ["y"] * 2_000}), tmp_path / "twice.parquet")
    assert_refused(cli("score", tmp_path / "twice.parquet", *store.flag), 2, "same field")
    pq.write_table(table().slice(0, 0), tmp_path / "none.parquet")
    assert store.score(tmp_path / "none.parquet")["read"] == 0


def test_parquet_with_odd_types_is_counted(store, tmp_path):
    odd = pa.array([{"a": [1]}] * 2_000)
    pq.write_table(table(globalUserId=[n % 7 for n in range(2_000)], extra=odd), tmp_path / "a.parquet")
    assert store.score(tmp_path / "a.parquet")["scored"] == 2_000
    assert set(store.ids_by_user()) == set("0123456")


def test_broken_parquet_is_refused(store, cli, tmp_path):
    whole = tmp_path / "whole.parquet"
    pq.write_table(table(), whole, row_group_size=500, compression="none")
    data = whole.read_bytes()
    for name, content in (
        ("cut", data[: len(data) // 2]),
        ("footer", data[:-40] + b"\xff" * 32 + data[-8:]),
        ("magic", b"PAR1" + b"\0" * 100),
        ("text", activity("a") + b"\n"),
    ):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(content)
        assert_refused(cli("score", path, *store.flag), 2, f"{name}.parquet")


def test_a_damaged_row_group_is_refused_when_it_is_reached(store, cli, make_store, tmp_path):
    whole, damaged = tmp_path / "whole.parquet", tmp_path / "damaged.parquet"
    pq.write_table(table(), whole, row_group_size=500, compression="gzip", use_dictionary=False)
    data = bytearray(whole.read_bytes())
    with pq.ParquetFile(whole) as file:
        column = file.metadata.row_group(2).column(0)
    begin = column.data_page_offset
    data[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    damaged.write_bytes(data)
    assert_refused(cli("score", damaged, *store.flag), 2, "damaged")
    store.score(whole)
    assert store.dump() == whole_dump(make_store, whole)


# Disks


def test_a_full_disk_ends_the_run_and_space_lets_it_finish(store_at, make_store, cli, full_disk, lines, tmp_path):
    source = write(tmp_path / "a.jsonl", *lines)
    disk = full_disk(32 * 1024 * 1024)
    ballast = disk / "ballast"
    cramped = store_at(disk / "fans.db")
    free = (120_000, 1_500_000, 3_000_000)  # too little for the schema, the first half, the second half
    for size in free:
        available = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        ballast.write_bytes(b"\0" * (available - size))
        assert_refused(cli("score", source, *cramped.flag, env=BATCHES_OF_20), 3, "disk is full")
        ballast.unlink()
    cramped.score(source)
    assert cramped.dump() == whole_dump(make_store, source)


def test_a_file_that_may_not_grow_ends_the_run(store, cli, make_store, lines, tmp_path):
    source = write(tmp_path / "a.jsonl", *lines)
    assert_refused(cli("score", source, *store.flag, largest_file=400_000), 3, str(store.path))
    store.score(source)
    assert store.dump() == whole_dump(make_store, source)


def test_output_to_a_full_disk_is_one_clear_line(store, cli, tmp_path):
    store.score(write(tmp_path / "a.jsonl", activity("a")))
    for arguments in (("dump",), ("arm", "fan"), ("show", "fan", "--json"), ("dead-letters", "list")):
        assert_refused(cli(*arguments, *store.flag, out="/dev/full"), 3)


# Stores


def test_a_second_bounded_run_on_a_store_is_refused_and_the_first_one_finishes(store, cli, stopped, lines, tmp_path):
    source = write(tmp_path / "a.jsonl", *lines)
    first = stopped(source, records=len(lines))
    assert_refused(cli("score", source, *store.flag), 3, "in use by another fan-identity process")
    assert_refused(cli("run", "scoreUsers", *store.flag), 3, "in use by another fan-identity process")
    assert cli("arm", "fan", *store.flag).code == 0, "readers read on"
    first.signal(signal.SIGCONT)
    result = first.wait()
    assert result.code == 0
    assert result.json["read"] == len(lines)


def test_a_bounded_run_beside_a_streaming_one_is_refused(store, cli, lines, tmp_path, until):
    source = write(tmp_path / "a.jsonl", *lines)
    stream = cli.start("run", "scoreUsers", *store.flag, "--streaming")
    lock = store.path.with_name(store.path.name + ".lock")
    stream.until(lambda: lock.exists() and is_held(lock), "it holds the store")
    assert_refused(cli("score", source, *store.flag), 3, "in use by another fan-identity process")
    stream.signal(signal.SIGTERM)
    assert stream.wait().code == 0


def is_held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def other_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE theirs (a)")


def newer_format(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE ours (a)")
        connection.execute(f"PRAGMA application_id={0x46414E49}")
        connection.execute("PRAGMA user_version=99")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_bytes(b"these are not the bytes of a database\n" * 100), "not an SQLite file"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4_096), "SQLite"),
        (other_program, "of another program"),
        (newer_format, "format 99"),
        (Path.mkdir, "is a folder"),
    ],
)
def test_what_is_no_store_of_ours_is_refused_and_left_alone(store, cli, tmp_path, make, words):
    make(store.path)
    before = None if store.path.is_dir() else store.path.read_bytes()
    source = write(tmp_path / "a.jsonl", activity("a"))
    for arguments in (
        ("score", source),
        ("run", "enqueueFromStream", "--source", source),
        ("run", "scoreUsers"),
        ("arm", "fan"),
        ("show", "fan"),
        ("dump",),
        ("dead-letters", "list"),
        ("dead-letters", "redrive"),
    ):
        assert_refused(cli(*arguments, *store.flag), 2, words, str(store.path))
    assert before is None or store.path.read_bytes() == before


def test_a_store_in_a_missing_folder_is_refused(cli, store_at, tmp_path):
    store = store_at(tmp_path / "nowhere" / "fans.db")
    source = write(tmp_path / "a.jsonl", activity("a"))
    assert_refused(cli("score", source, *store.flag), 2, "there is no folder")
    assert_refused(cli("arm", "fan", *store.flag), 2, "does not exist")
    assert not store.path.parent.exists()


def test_looking_into_a_store_that_is_not_there_makes_none(cli, store):
    for arguments in (("arm", "fan"), ("show", "fan"), ("dump",), ("dead-letters", "redrive")):
        assert_refused(cli(*arguments, *store.flag), 2, "does not exist")
    assert not store.path.exists()


@pytest.fixture
def read_only(full_disk, store_at, tmp_path) -> Any:
    """A store on a file system that became read-only."""
    disk = full_disk(16 * 1024 * 1024)
    store = store_at(disk / "fans.db")
    store.score(write(tmp_path / "before.jsonl", activity("before")))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    return store


def test_a_read_only_store_is_refused_in_one_line(read_only, cli, tmp_path):
    source = write(tmp_path / "a.jsonl", activity("a"))
    assert_refused(cli("score", source, *read_only.flag), 3, str(read_only.path))
    assert_refused(cli("run", "scoreUsers", *read_only.flag), 3, str(read_only.path))


def test_a_read_only_store_can_be_looked_into_or_says_why_not(read_only, cli):
    result = cli("arm", "fan", *read_only.flag, "--json")
    if result.code:
        assert_refused(result, 3, str(read_only.path))
    else:
        assert result.json["data"]["armScore"] in range(1, 6)


# Usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "nobody", "--store", "sqlite:///x.db"), "there is no worker 'nobody'"),
        (("run", "--store", "sqlite:///x.db"), "which worker?"),
        (("run", "enqueueFromStream", "--store", "sqlite:///x.db"), "needs --source"),
        (
            ("run", "scoreUsers", "--store", "sqlite:///x.db", "--source", "a.jsonl"),
            "--source: scoreUsers reads accountActivityQueue",
        ),
        (("run", "scoreUsers"), "no address for the queue"),
        (("score", "good.jsonl"), "--store"),
        (("score", "good.jsonl", "--store", "fans.db"), "not an address"),
        (("score", "good.jsonl", "--store", "sqlite://x.db"), "sqlite:///file.db"),
        (("score", "good.jsonl", "--store", "sqlite:///"), "sqlite:///file.db"),
        (("score", "good.jsonl", "--store", "mysql://host/db"), "mysql:// is not supported"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db?a"), "options are written"),
        (("run", "scoreUsers", "--store", "sqlite:///x.db", "--queue", "kafka://h/t"), "kafka:// is not supported"),
        (("arm", "fan"), "which store?"),
        (("arm", "fan", "--store", "redis://host/0"), "redis:// is not supported"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--horizon", "7"), "horizon"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--horizon", "-7d"), "horizon"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--horizon", "9999999d"), "horizon"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--horizon", "٣d"), "horizon"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--as-of", "soon"), "--as-of"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--format", "xml"), "--format"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--format", "parquet"), "Parquet"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--report", "nowhere/r.html"), "nowhere"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--", "--nonsense=1"), "no option --nonsense"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--", "nonsense"), "no option nonsense"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--", "--runner=Nobody"), "--runner=Nobody"),
        (("score", "good.jsonl", "--store", "sqlite:///x.db", "--", "--direct_num_workers=two"), "direct_num_workers"),
        (("run", "scoreUsers", "--store", "sqlite:///x.db", "--", "--direct_running_mode=fast"), "direct_running_mode"),
        (("run", "enqueueFromStream", "--store", "sqlite:///x.db", "--source", "a.csv", "--streaming"), "csv"),
        (("dead-letters", "show", "abc", "--store", "sqlite:///made.db"), "no dead letter has that id"),
    ],
    ids=lambda value: " ".join(value).replace("/", "|") if isinstance(value, tuple) else "",
)
def test_wrong_usage_is_one_clear_line(cli, tmp_path, store_at, arguments, words):
    write(tmp_path / "good.jsonl", activity("a"))
    if "made.db" in " ".join(arguments):
        store_at(tmp_path / "made.db").score(tmp_path / "good.jsonl")
    assert_refused(cli(*arguments, folder=tmp_path), 2, words)
    assert not (tmp_path / "x.db").exists() or "--runner=Nobody" in arguments, "refused before anything is done"


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "good.jsonl", "--nonsense"),
        ("score",),
        ("arm",),
        ("nobody",),
        ("show", "fan", "--limit", "0"),
        ("demo", "--fans", "many"),
        ("dead-letters", "nobody"),
    ],
    ids=" ".join,
)
def test_an_unknown_flag_or_command_is_one_clear_line(cli, arguments):
    assert_refused(cli(*arguments), 2)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("FAN_IDENTITY_BATCH_SIZE", "0", "batch_size"),
        ("FAN_IDENTITY_BATCH_SIZE", "many", "batch_size"),
        ("FAN_IDENTITY_VISIBILITY_TIMEOUT", "0", "visibility_timeout"),
        ("FAN_IDENTITY_VISIBILITY_TIMEOUT", "soon", "visibility_timeout"),
        ("FAN_IDENTITY_HORIZON", "soon", "horizon"),
        ("FAN_IDENTITY_LOG_LEVEL", "loud", "log_level"),
        ("FAN_IDENTITY_STORE", "fans.db", "--store"),
        ("FAN_IDENTITY_MODEL", "ftp://host/score", "ftp://"),
    ],
)
def test_a_wrong_setting_in_the_environment_is_one_clear_line(cli, tmp_path, name, value, words):
    source = write(tmp_path / "good.jsonl", activity("a"))
    result = cli("score", source, env={"FAN_IDENTITY_STORE": f"sqlite:///{tmp_path}/x.db", name: value})
    assert_refused(result, 2, words)
    assert not (tmp_path / "x.db").exists()


def with_change(**changes: Any) -> bytes:
    card = json.loads(files("fan_identity.io").joinpath("scorecard.json").read_bytes())
    return json.dumps({**card, **changes}).encode()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"not JSON",
        b"{}",
        b"[1]",
        with_change(modelVersion=" "),
        with_change(armThresholds=[1, 2, 3, 4]),
        with_change(basePoints=99_999),
        with_change(features={}),
        with_change(calibration={"intercept": 1.0, "slope": 2.0}),
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=range(12),
)
def test_a_bad_model_file_is_refused(store, cli, tmp_path, content):
    source, model = write(tmp_path / "a.jsonl", activity("a")), tmp_path / "model.json"
    if content is not None:
        model.write_bytes(content)
    assert_refused(cli("score", source, *store.flag, "--model", f"file://{model}"), 2, "--model", str(model))
    assert_refused(cli("run", "scoreUsers", *store.flag, "--model", str(model)), 2, "--model", str(model))
    assert store.scores() == store.waiting() == 0
