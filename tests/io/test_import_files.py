"""Planning: everything that is wrong with an import's files is said before anything is read, in one line."""

import gzip
import os
import pickle
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fan_identity.domain.imports import ImportKind
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.import_files import plan_import, read_import

BON, CLUSTER = ImportKind.BOT_OR_NOT, ImportKind.CLUSTER
CSV = b"globalUserId,bonScore\nfan-1,0.25\nfan-2,1\n"
JSONL = b'{"globalUserId":"fan-1","bonScore":0.25}\n{"globalUserId":"fan-2","bonScore":1}\n'
TABLE = {"globalUserId": pa.array(["fan-1", "fan-2"]), "bonScore": pa.array([0.25, 1.0])}
PAIRS = [("fan-1", 0.25), ("fan-2", 1.0)]


def write(folder: Path, name: str, contents: bytes | dict[str, pa.Array], **settings: object) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    else:
        pq.write_table(pa.table(contents), path, **settings)
    return str(path)


def read(*addresses: str, kind: ImportKind = BON, format: str | None = None):
    plan = plan_import(addresses, kind, format)
    return [rows for part in plan.ranges for rows in read_import(part)]


def pairs(results) -> list[tuple[str, object]]:
    return [(row["user"], row["value"]) for rows in results for row in rows.table.to_pylist()]


def refusal(*addresses: str, kind: ImportKind = BON, format: str | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        plan_import(addresses, kind, format)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


FILES = {
    "scores.parquet": TABLE,
    "scores.csv": CSV,
    "scores.jsonl": JSONL,
    "scores.ndjson": JSONL,
    "scores.json": JSONL,
    "scores.csv.gz": gzip.compress(CSV),
    "scores.jsonl.gz": gzip.compress(JSONL),
    "scores.csv.zst": pa.compress(CSV, "zstd", asbytes=True),
    "scores.jsonl.zst": pa.compress(JSONL, "zstd", asbytes=True),
    "UPPER.CSV.GZ": gzip.compress(CSV),
    "content-encoding.csv": gzip.compress(CSV),
    "without-suffix": JSONL,
}


@pytest.mark.parametrize("name", FILES)
def test_every_format(tmp_path, name):
    path = write(tmp_path, name, FILES[name])
    plan = plan_import([path], BON)
    assert (plan.rows, plan.files) == (2, (path,))
    results = read(path)
    assert pairs(results) == PAIRS
    assert sum(rows.rows for rows in results) == 2
    assert results[0].table.schema == pa.schema(
        [
            pa.field("user", pa.string(), nullable=False),
            pa.field("value", pa.float64(), nullable=False),
            pa.field("updatedAt", pa.int64(), nullable=False),
        ]
    )


def test_rows_without_a_time_have_the_files(tmp_path):
    path = write(tmp_path, "scores.csv", CSV)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert {row["updatedAt"] for row in read(path)[0].table.to_pylist()} == {1_700_000_000_000}


def test_a_file_from_the_future_makes_rows_of_now(tmp_path):
    path = write(tmp_path, "scores.csv", CSV)
    os.utime(path, (7_000_000_000, 7_000_000_000))
    plan = plan_import([path], BON)
    rows = next(read_import(plan.ranges[0])).table.to_pylist()
    assert {row["updatedAt"] for row in rows} == {plan.ranges[0].planned_at_ms}


@pytest.mark.parametrize("name", FILES)
def test_columns_by_their_other_names(tmp_path, name):
    contents = FILES[name]
    renamed = {"globalUserId": "global_user_id", "bonScore": "bon_score"}
    if isinstance(contents, bytes):
        text = CSV if "csv" in name.lower() else JSONL
        for old, new in renamed.items():
            text = text.replace(old.encode(), new.encode())
        name, contents = name.lower().removesuffix(".gz").removesuffix(".zst"), text
    else:
        contents = {renamed[column]: values for column, values in contents.items()}
    assert pairs(read(write(tmp_path, name, contents))) == PAIRS


def test_ranges_are_small_and_travel(tmp_path):
    plan = plan_import([write(tmp_path, "scores.csv", CSV)], BON)
    packed = pickle.dumps(plan.ranges[0])
    assert len(packed) < 1_500
    assert pickle.loads(packed) == plan.ranges[0]


class TestDigest:
    def test_is_of_the_contents_whatever_names_and_order(self, tmp_path):
        one = write(tmp_path, "a.csv", CSV)
        two = write(tmp_path, "b.jsonl", JSONL)
        moved = write(tmp_path / "else", "c.csv", CSV)
        digest = plan_import([one, two], BON).digest
        assert re.fullmatch(r"[0-9a-f]{64}", digest)
        assert plan_import([two, one], BON).digest == digest
        assert plan_import([two, moved], BON).digest == digest
        assert plan_import([one], BON).digest != digest

    def test_changes_with_one_byte_anywhere(self, tmp_path):
        big = CSV + b"".join(b"fan-%d,0.5\n" % i for i in range(100_000))
        before = plan_import([write(tmp_path, "a.csv", big)], BON).digest
        after = plan_import([write(tmp_path, "a.csv", big[:-4] + b"0.6\n")], BON).digest
        assert before != after

    def test_a_file_named_twice_counts_once(self, tmp_path):
        path = write(tmp_path, "a.csv", CSV)
        plan = plan_import([path, f"{tmp_path}/", f"file://{path}", os.path.relpath(path)], BON)
        assert (plan.files, plan.rows) == ((path,), 2)
        assert plan.digest == plan_import([path], BON).digest


class TestFolders:
    def test_all_files_with_a_known_suffix_in_the_order_of_their_names(self, tmp_path):
        write(tmp_path, "day/part-2.csv", CSV)
        write(tmp_path, "day/part-1.csv.gz", gzip.compress(CSV))
        write(tmp_path, "day/deeper/part-3.jsonl", JSONL)
        for unread in ("_SUCCESS", ".part-1.csv.crc", "_temporary/0/part-9.csv", "notes.txt", ".hidden/x.csv"):
            write(tmp_path, f"day/{unread}", b"" if unread == "_SUCCESS" else b"nonsense")
        plan = plan_import([f"{tmp_path}/day/"], BON)
        assert [Path(name).name for name in plan.files] == ["part-3.jsonl", "part-1.csv.gz", "part-2.csv"]
        assert plan.rows == 6

    def test_parts_without_rows_are_fine_where_another_has_some(self, tmp_path):
        write(tmp_path, "part-0.parquet", {name: column[:0] for name, column in TABLE.items()})
        write(tmp_path, "part-1.csv", CSV.splitlines(keepends=True)[0])
        assert "have no rows" in refusal(f"{tmp_path}/")
        write(tmp_path, "part-2.parquet", TABLE)
        assert pairs(read(f"{tmp_path}/")) == PAIRS

    def test_wrong_folders(self, tmp_path):
        assert f"is a folder; write {tmp_path}/ to read all files in it" in refusal(str(tmp_path))
        assert "no such folder" in refusal(f"{tmp_path}/nothing/")
        assert "holds no file to import" in refusal(f"{tmp_path}/")


MANY = gzip.compress(CSV + b"".join(b"fan-%d,0.5\n" % i for i in range(5_000)))
REFUSED = {
    "empty file": ("a.csv", b"", "empty"),
    "header only": ("a.csv", b"globalUserId,bonScore\n", "has no rows"),
    "blank lines only": ("a.csv", b"\n\n", "has no rows"),
    "no row groups": ("a.parquet", {name: column[:0] for name, column in TABLE.items()}, "has no rows"),
    "missing column": ("a.csv", b"globalUserId,score\nx,1\n", "misses the column bonScore; found: globalUserId, score"),
    "missing both": (
        "a.csv",
        b"user;bonScore\nx;1\n",
        "misses the columns globalUserId, bonScore; found: user;bonScore",
    ),
    "missing in Parquet": (
        "a.parquet",
        {"bonScore": pa.array([1.0])},
        "misses the column globalUserId; found: bonScore",
    ),
    "missing in JSON": (
        "a.jsonl",
        b'{"globalUserId":"x","s":1}\n',
        "misses the column bonScore; found: globalUserId, s",
    ),
    "other kind": ("a.csv", b"globalUserId,clusterId\nx,c\n", "import it with startClusterImport"),
    "other kind in Parquet": (
        "a.parquet",
        {"globalUserId": pa.array(["x"]), "clusterId": pa.array(["c"])},
        "startCluster",
    ),
    "other kind in JSON": (
        "a.jsonl",
        b'{"global_user_id":"x","cluster_id":"c"}\n',
        "import it with startClusterImport",
    ),
    "column twice": ("a.csv", b"globalUserId,bonScore,bonScore\nx,1,1\n", "fill the same field"),
    "two spellings": ("a.csv", b"globalUserId,bonScore,bon_score\nx,1,1\n", "'bonScore' and 'bon_score' fill the same"),
    "UTF-16": ("a.csv", CSV.decode().encode("utf-16"), "UTF-16"),
    "UTF-16 without mark": ("a.jsonl", JSONL.decode().encode("utf-16-le"), "UTF-16"),
    "latin-1 header": ("a.csv", "globalUserId,bonScore,größe\nx,1,1\n".encode("latin-1"), "header row is not UTF-8"),
    "header with open quote": ("a.csv", b'globalUserId,"bonScore\nx,1\n', "a quote is not closed"),
    "JSON array": ("a.json", b'[{"globalUserId":"x","bonScore":1}]', "JSON array"),
    "JSON over lines": ("a.json", b'{\n"globalUserId":"x",\n"bonScore":1}', "spans lines"),
    "no JSON": ("a.jsonl", CSV, "is it JSON lines"),
    "no Parquet": ("a.parquet", CSV, "is half a Parquet file, damaged, or none"),
    "Parquet by another name": ("a.csv", b"PAR1" + bytes(100) + b"PAR1", "is a Parquet file, not csv"),
    "bzip2": ("a.csv.bz2", b"BZh91AY", "compressed as .bz2"),
    "zip": ("a.csv", b"PK\x03\x04" + CSV, "compressed as .zip"),
    "xz by name": ("a.csv.xz", CSV, "compressed as .xz"),
    "gz by name only": ("a.csv.gz", CSV, "is named .gz but holds no compression"),
    "zst holds gzip": ("a.csv.zst", gzip.compress(CSV), "is named .zst but holds gzip"),
    "packed Parquet": ("a.parquet.gz", gzip.compress(b"PAR1"), "unpack it first"),
    "half a gzip": ("a.csv.gz", gzip.compress(CSV * 1_000)[:-20], "ends too early"),
    "half a zstd": ("a.csv.zst", pa.compress(CSV * 1_000, "zstd", asbytes=True)[:-20], "ends too early"),
    "damaged gzip": ("a.csv.gz", MANY[:4_000] + b"\xff" * 200 + MANY[4_200:], "is damaged"),
    "rubbish behind gzip": ("a.csv.gz", gzip.compress(CSV) + b"rubbish!" * 10, "is damaged"),
    "unclear format": ("a.txt", CSV, "what format is it?"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_read(tmp_path, case):
    name, contents, told = REFUSED[case]
    path = write(tmp_path, name, contents)
    message = refusal(path)
    assert told in message
    assert message.startswith(path)


@pytest.mark.parametrize("keep", [5, 200, -4, -1])
def test_half_a_parquet_file(tmp_path, keep):
    path = Path(write(tmp_path, "a.parquet", TABLE))
    path.write_bytes(path.read_bytes()[:keep])
    assert "is half a Parquet file" in refusal(str(path))


@pytest.mark.parametrize(
    ("kind", "column", "values", "told"),
    [
        (BON, "bonScore", pa.array([[0.5], [0.5]]), "a number from 0 to 1 is needed"),
        (BON, "bonScore", pa.array([True, False]), "a number from 0 to 1 is needed"),
        (BON, "globalUserId", pa.array([{"id": "x"}, {"id": "y"}]), "text is needed"),
        (BON, "globalUserId", pa.array([True, False]), "text is needed"),
        (BON, "globalUserId", pa.array([b"x" * 2_000] * 2, pa.binary(2_000)), "text is needed"),
        (BON, "updatedAt", pa.array([True, False]), "a time is needed"),
        (CLUSTER, "clusterId", pa.array([["c"], ["d"]]), "text is needed"),
    ],
)
def test_types_that_cannot_be_meant(tmp_path, kind, column, values, told):
    table = {"globalUserId": pa.array(["a", "b"]), kind.value_column: pa.array(["1", "0"]), column: values}
    assert f"the column {column} is of type {str(values.type)[:5]}" in refusal(
        path := write(tmp_path, "a.parquet", table), kind=kind
    )
    assert told in refusal(path, kind=kind)


def test_wrong_names(tmp_path):
    assert "no such file" in refusal(str(tmp_path / "nothing.csv"))
    assert "http:// is not read here" in refusal("http://example.com/a.csv")
    assert "there are: parquet, csv, jsonl" in refusal(write(tmp_path, "a.csv", CSV), format="xml")
    assert "name one" in refusal()
    assert "may not be" not in refusal(write(tmp_path, "a\nb.csv", b"x,y\n1,2\n"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path):
    path = write(tmp_path, "a.csv", CSV)
    Path(path).chmod(0)
    assert "may not be read" in refusal(path)


def test_the_format_can_be_named(tmp_path):
    path = write(tmp_path, "scores.txt", CSV)
    assert pairs(read(path, format="csv")) == PAIRS


class TestChangedSinceThePlan:
    def test_gone(self, tmp_path):
        path = write(tmp_path, "a.csv", CSV)
        part = plan_import([path], BON).ranges[0]
        Path(path).unlink()
        with pytest.raises(BackendUnavailableError, match=r"a\.csv: is gone since the import began"):
            next(read_import(part))

    def test_replaced(self, tmp_path):
        path = write(tmp_path, "a.csv", CSV)
        part = plan_import([path], BON).ranges[0]
        os.utime(path, (1_700_000_000, 1_700_000_000))
        with pytest.raises(BackendUnavailableError, match=r"a\.csv: was replaced since the import began"):
            next(read_import(part))

    def test_replaced_under_the_readers_hands(self, tmp_path):
        path = write(tmp_path, "a.csv", CSV)
        source = read_import(plan_import([path], BON).ranges[0])
        assert pairs([next(source)]) == PAIRS
        write(tmp_path, "a.csv", CSV + b"fan-3,1\n")
        with pytest.raises(BackendUnavailableError, match="was replaced"):
            next(source)

    def test_damaged_page(self, tmp_path):
        users = pa.array([os.urandom(16).hex() for _ in range(5_000)])
        table = {"globalUserId": users, "bonScore": pa.array([0.5] * 5_000)}
        path = Path(write(tmp_path, "a.parquet", table))
        data = bytearray(path.read_bytes())
        data[5_000:-5_000] = b"\xff" * (len(data) - 10_000)
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"a\.parquet: its data are damaged") as caught:
            read(str(path))
        assert "\n" not in str(caught.value)


class TestSplitting:
    def test_parquet_between_row_groups(self, tmp_path):
        count = 1_200_000
        table = {"globalUserId": pa.array(range(count)), "bonScore": pa.repeat(0.5, count)}
        plan = plan_import([write(tmp_path, "a.parquet", table, row_group_size=200_000)], BON)
        assert [(part.first_row, part.rows) for part in plan.ranges] == [
            (0, 400_000),
            (400_000, 400_000),
            (800_000, 400_000),
        ]
        users = [rows.table["user"] for part in plan.ranges for rows in read_import(part)]
        assert max(map(len, users)) <= 65_536
        assert pa.concat_arrays([chunk for user in users for chunk in user.chunks]).cast(
            pa.int64()
        ).to_pylist() == list(range(count))

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "quoted.csv", "a.csv.gz"])
    def test_text_between_lines(self, tmp_path, name):
        quote = '"' if name.startswith("quoted") else ""
        if "csv" in name:
            lines = ["globalUserId,bonScore", *(f"{quote}fan-{i}{quote},{2 * (i == 700)}" for i in range(1_000))]
        else:
            lines = [f'{{"globalUserId":"fan-{i}","bonScore":{2 * (i == 700)}}}' for i in range(1_000)]
        text = "\n".join(lines).encode()
        path = write(tmp_path, name, gzip.compress(text) if name.endswith("gz") else text)
        plan = plan_import([path], BON, target_bytes=2_000)
        assert plan.rows == 1_000 == sum(part.rows for part in plan.ranges)
        assert len(plan.ranges) == 1 if quote or name.endswith("gz") else len(plan.ranges) > 2
        results = [rows for part in plan.ranges for rows in read_import(part)]
        assert [user for user, _ in pairs(results)] == [f"fan-{i}" for i in range(1_000) if i != 700]
        (bad,) = [bad for rows in results for bad in rows.bad]
        line = lines.index(bad.payload.decode()) + 1
        assert (bad.position, bad.reason) == (f"{path} line {line}", "out_of_range")
        assert line == 701 + ("csv" in name)
