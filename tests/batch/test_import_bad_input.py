"""Imports that are refused: one clear line, exit code 2, and not a byte of any table changed."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ..imported_fans import (
    BON,
    CLUSTER,
    COMMAND,
    TIME,
    Importing,
    Row,
    check_version,
    copy_of,
    encoded,
    pointer,
    scores_of,
    tables_of,
    winners,
    written,
)

KINDS = (BON, CLUSTER)
FIRST = {
    kind: [(f"fan-{number:03d}", 0.25 if kind == BON else f"c{number % 9}", TIME) for number in range(100)]
    for kind in KINDS
}
"""What is active: neither of them changes anybody's ARM."""


@pytest.fixture(scope="module")
def active(store_at, commands, tmp_path_factory) -> Any:
    """A store of a hundred scored fans with an active version of each kind."""
    folder = tmp_path_factory.mktemp("active")
    lines = [
        f'{{"activityId":"a-{number}","globalUserId":"fan-{number:03d}","activityType":"login",'
        f'"occurredAt":"2025-12-31T00:00:00Z"}}\n'
        for number in range(100)
    ]
    (folder / "activities.jsonl").write_text("".join(lines))
    store = store_at(folder / "fans.db")
    assert store.score(folder / "activities.jsonl")["scored"] == 100
    for kind in KINDS:
        path = written(folder / f"yesterday-{kind}.csv", kind, FIRST[kind])
        result = commands("imports", "start", COMMAND[kind], path, *store.flag)
        assert (result.code, len(result.err_lines)) == (0, 1), result
    return store


@pytest.fixture
def imports(active, store_at, tmp_path) -> Importing:
    return Importing(copy_of(active, tmp_path / "fans.db", store_at), tmp_path)


def newer(kind: str, by: int = 1_000) -> list[Row]:
    return [(fan, value, at + by) for fan, value, at in FIRST[kind]]


def refused(imports: Importing, kind: str, *arguments: object, code: int = 2) -> str:
    """Imports what must be refused; the one line it said."""
    before = tables_of(imports.store)
    result = imports.store.cli("imports", "start", COMMAND[kind], *arguments, *imports.store.flag)
    assert (result.code, len(result.err_lines)) == (code, 1), result
    assert tables_of(imports.store) == before
    return result.err_lines[0]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


FILES: dict[str, tuple[str, str, Any, str]] = {
    "missing column": (BON, "a.csv", b"globalUserId,score\nfan-001,0.5\n", "misses the column bonScore; found: "),
    "missing fan": (CLUSTER, "a.jsonl", b'{"user":"a","clusterId":"c"}\n', "a.jsonl: misses the column globalUserId"),
    "empty file": (BON, "a.csv", b"", "a.csv: is empty; "),
    "header only": (BON, "a.csv", b"globalUserId,bonScore\n", "a.csv: has no rows"),
    "half a Parquet file": (BON, "a.parquet", half(encoded(BON, newer(BON), "a.parquet")), "is half a Parquet"),
    "half a gzip file": (BON, "a.csv.gz", half(encoded(BON, newer(BON), "a.csv.gz")), "contents: ends too early"),
    "half a zstd file": (BON, "a.csv.zst", half(encoded(BON, newer(BON), "a.csv.zst")), "a.csv.zst: its zstd contents"),
    "for the other import": (BON, "a.csv", encoded(CLUSTER, newer(CLUSTER), "a.csv"), "a file for startClusterImport"),
    "for the other import, Parquet": (
        CLUSTER, "a.parquet", encoded(BON, newer(BON), "a.parquet"), "a file for startBotOrNotImport"
    ),
    "yesterday's": (BON, "today.csv", encoded(BON, FIRST[BON], "a.csv"), "imported before, as version "),
    "NaN": (BON, "a.csv", b"globalUserId,bonScore\nfan-001,NaN\n", "refused: the files have no usable row"),
    "out of range": (BON, "a.csv", b"globalUserId,bonScore\nfan-001,1.01\n", "refused: the files have no usable row"),
    "not a number": (BON, "a.csv", b"globalUserId,bonScore\nfan-001,high\n", "refused: the files have no usable row"),
    "no such file": (BON, "a.csv", None, "a.csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_do_not_fit_are_refused(imports, name):
    kind, file, data, expected = FILES[name]
    path = imports.folder / file
    if data is not None:
        path.write_bytes(data)
    assert expected in refused(imports, kind, path)


def one_in(number: int, kind: str, value: Any, part: str = "value") -> list[Row]:
    """The rows of today, every n-th with another value, or of a fan nobody knows."""
    return [
        row if place % number else (f"new-{place}", *row[1:]) if part == "fan" else (row[0], value, row[2])
        for place, row in enumerate(newer(kind))
    ]


THRESHOLDS: dict[str, tuple[str, list[Row], tuple[str, ...], tuple[str, ...], str]] = {
    "unknown fans": (
        BON,
        one_in(3, BON, None, "fan"),
        ("--max-removed", "1"),
        ("--max-unknown", "0.34"),
        "34 of 100 fans have never been scored (34.0%), more than --max-unknown 0.2 allows",
    ),
    "bad rows": (
        BON,
        one_in(50, BON, 1.5),
        (),
        ("--max-bad", "0.02"),
        "2 of 100 rows are bad (2.0%), more than --max-bad 0.01 allows",
    ),
    "removed": (
        CLUSTER,
        newer(CLUSTER)[:79],
        (),
        ("--max-removed", "0.21"),
        "21 of 100 fans of the active version are missing (21.0%), more than --max-removed 0.2 allows",
    ),
    "ARM": (
        BON,
        one_in(4, BON, 0.95),
        (),
        ("--max-arm-changes", "0.25"),
        "25 of 100 scored fans change ARM (25.0%), more than --max-arm-changes 0.2 allows",
    ),
}


@pytest.mark.parametrize("name", THRESHOLDS)
def test_each_threshold_refuses_above_it_and_not_at_it(imports, name):
    kind, rows, given, raised, expected = THRESHOLDS[name]
    path = imports.file("a.csv", kind, rows)
    assert expected in refused(imports, kind, path, *given)
    at_it = imports.store.cli(
        "imports", "start", COMMAND[kind], path, *imports.store.flag, *given, *raised, "--dry-run"
    )
    assert (at_it.code, at_it.err_lines) == (0, ["dry run: nothing was written"]), at_it


def test_rows_older_than_what_is_active_are_refused(imports):
    line = refused(imports, CLUSTER, imports.file("a.csv", CLUSTER, newer(CLUSTER, -1)))
    assert "the newest row is of 2025-12-31T23:59:59.999Z, that of the active version " in line


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_bad_rows_below_the_threshold_become_dead_letters_with_file_and_line(imports, end):
    """A retried import writes no letter twice."""
    rows = newer(BON)
    bad = {
        7: ("fan-007", 1.5, TIME),
        20: ("fan-020", float("nan"), TIME),
        33: ("  ", 0.5, TIME),
        90: ("fan-090", 0.5, 4),
    }
    repeated = [("fan-001", 0.3, TIME + 1_000), ("fan-002", 0.2, TIME)]
    all_rows = [bad.get(place, row) for place, row in enumerate(rows)] + repeated
    path = imports.file(f"today.{end}", BON, all_rows)
    result = imports.store.cli(
        "imports", "start", "bot-or-not", path, *imports.store.flag, "--max-bad", "0.05", "--json"
    )
    assert result.code == 1, result
    assert result.err_lines[-1] == "4 bad rows are dead letters; see: fan-identity dead-letters list"
    assert result.json["books"] == {"rows": 102, "bad": 4, "repeated": 2, "fans": 96, "unaccounted": 0}
    assert result.json["comparison"]["bad"] == {"blank_user": 1, "not_a_number": 1, "out_of_range": 1, "too_old": 1}
    line, first = ("row", 0) if end == "parquet" else ("line", 2)
    letters = imports.store.query("SELECT reason, source, position, worker FROM dead_letters ORDER BY reason")
    places = {"blank_user": 33, "not_a_number": 20, "out_of_range": 7, "too_old": 90}
    assert letters == [
        (reason, str(path), f"{path} {line} {place + first}", "startBotOrNotImport") for reason, place in places.items()
    ]
    check_version(imports.store, BON, winners(BON, [row for row in all_rows if row not in bad.values()]))
    listed = imports.store.cli("dead-letters", "list", *imports.store.flag, "--json")
    assert (listed.code, len(listed.text.splitlines())) == (0, 4)
    # The same rows once more, in a file that says besides what has not changed.
    path.write_bytes(encoded(BON, [*all_rows, ("fan-001", 0.3, TIME + 1_000)], path.name))
    again = imports.store.cli(
        "imports", "start", "bot-or-not", path, *imports.store.flag, "--max-bad", "0.05", "--json"
    )
    assert (again.code, again.json["result"]) == (1, "unchanged"), again
    assert imports.store.number("SELECT count(*) FROM dead_letters") == 4


def test_long_values_are_bad_rows(imports):
    rows = [*newer(CLUSTER), ("fan-long", "c" * 257, TIME), ("u" * 10_241, "c1", TIME), ("u" * 10_240, "c" * 256, TIME)]
    told = imports.start(CLUSTER, imports.file("a.jsonl", CLUSTER, rows), "--max-bad", "1", code=1)
    assert told["comparison"]["bad"] == {"cluster_too_long": 1, "user_too_long": 1}
    assert told["books"]["fans"] == 101


def test_the_summary_of_an_import_that_fails_is_not_the_last_ones(imports, tmp_path):
    path, summary, report = tmp_path / "a.csv", tmp_path / "summary.json", tmp_path / "report.html"
    path.write_text("globalUserId,score\nfan-001,0.5\n")
    summary.write_text('{"outcome": "done"}')
    report.write_text("yesterday's")
    line = refused(imports, BON, path, "--summary", summary, "--report", report)
    told = json.loads(summary.read_text())
    assert (told["job"], told["outcome"], told["exitCode"]) == ("imports botOrNot", "refused", 2)
    assert told["notes"] == [line.removeprefix("error: ")]
    assert "misses the column bonScore" in report.read_text()


def test_arguments_that_do_not_fit(imports, tmp_path):
    path = imports.file("a.csv", BON, newer(BON))
    assert "there is no folder" in refused(imports, BON, path, "--work", tmp_path / "nowhere")
    assert "there is no folder" in refused(imports, BON, path, "--work", path)
    assert "--max-bad" in refused(imports, BON, path, "--max-bad", "2")
    assert "--max-removed" in refused(imports, BON, path, "--max-removed", "nan")
    assert "--format" in refused(imports, BON, path, "--format", "xml")
    (tmp_path / "empty").mkdir()
    assert "holds no file to import" in refused(imports, BON, f"{tmp_path}/empty/")
    before = tables_of(imports.store)
    result = imports.store.cli("imports", "start", "bots", path, *imports.store.flag)
    assert (result.code, result.err_lines) == (
        2,
        ["error: there is no kind of import 'bots'; use cluster or bot-or-not"],
    )
    on_a_cluster = ("--dry-run", *imports.store.flag, "--", "--runner=FlinkRunner", "--flink_master=localhost:1")
    result = imports.store.cli("imports", "start", COMMAND[BON], path, *on_a_cluster)
    assert (result.code, len(result.err_lines)) == (2, 1), result
    assert result.err_lines[0].startswith("error: --work: on a cluster, name a folder all workers reach")
    result = imports.store.cli("imports", "show", "nothing", *imports.store.flag)
    assert (result.code, len(result.err_lines)) == (2, 1)
    assert tables_of(imports.store) == before


def test_a_full_disk_for_the_work_folder_ends_with_one_line(imports, full_disk):
    rng = random.Random(3)
    rows = newer(BON) + [(f"{rng.randbytes(400).hex()}", 0.1, TIME + 1_000) for _ in range(2_000)]
    path = imports.file("a.csv", BON, rows)
    line = refused(imports, BON, path, "--max-unknown", "1", "--work", full_disk(400_000), code=3)
    assert "work folder" in line and "No space left" in line


def test_a_store_that_cannot_be_written_ends_with_one_line(imports, full_disk):
    """The disk fills up in the middle: what was active is active, scores and all, and the next run finishes."""
    taken = sum(path.stat().st_size for path in imports.folder.glob("fans.db*"))
    folder = full_disk(taken + 3_000_000)
    store = copy_of(imports.store, folder / "fans.db", lambda path: type(imports.store)(path, imports.store.cli))
    rows = newer(BON) + [(f"fan-{number}-{'x' * 200}", 0.7, TIME + 1_000) for number in range(20_000)]
    path = imports.file("a.csv", BON, rows)
    before, scores = pointer(store, BON), scores_of(store)
    result = store.cli("imports", "start", "bot-or-not", path, *store.flag, "--max-unknown", "1")
    assert (result.code, len(result.err_lines)) == (3, 1), result
    assert "the disk is full" in result.err
    assert (pointer(store, BON), scores_of(store)) == (before, scores)


def test_many_columns_types_and_times_a_spark_job_would_write(imports, tmp_path):
    rows = newer(CLUSTER)
    table = pa.table(
        {
            "extra": pa.array([{"a": 1}] * 100),
            "updated_at": pa.array([at * 1_000 for _, _, at in rows], pa.timestamp("us", "UTC")),
            "cluster_id": pa.array([value for _, value, _ in rows]).dictionary_encode(),
            "global_user_id": pa.array([fan for fan, _, _ in rows], pa.large_string()),
        }
    )
    folder = Path(tmp_path / "out")
    folder.mkdir()
    pq.write_table(table, folder / "part-00000.snappy.parquet")
    (folder / "_SUCCESS").touch()
    told = imports.start(CLUSTER, f"{folder}/")
    assert told["result"] == "unchanged"
