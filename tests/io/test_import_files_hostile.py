"""Files made to harm: they cost neither memory nor a crash, and what is good in them is read."""

import gzip
import os
import random
import subprocess
import sys
import zlib
from datetime import time, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fan_identity.domain.imports import ImportKind
from fan_identity.io.errors import UsageError
from fan_identity.io.import_files import plan_import, read_import

BON, CLUSTER = ImportKind.BOT_OR_NOT, ImportKind.CLUSTER
HEADER = b"globalUserId,bonScore\n"
MIB = 1024 * 1024


def run_alone(code: str, *arguments: str) -> str:
    """Runs code in a process of its own, so that the memory it needs can be told."""
    prelude = (
        "import re, sys\n"
        "from fan_identity.domain.imports import ImportKind\n"
        "from fan_identity.io.errors import UsageError\n"
        "from fan_identity.io.import_files import plan_import, read_import\n"
        "def peak():\n"
        "    return int(re.search('VmHWM:\\\\s+([0-9]+) kB', open('/proc/self/status').read())[1]) // 1024\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, *arguments], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


READ_ALL = """
import pyarrow, pyarrow.parquet, pyarrow.csv
begun = peak()
try:
    plan = plan_import([sys.argv[1]], ImportKind.BOT_OR_NOT)
    rows = bad = 0
    for part in plan.ranges:
        for result in read_import(part):
            rows += result.rows
            bad += len(result.bad)
    print(rows, bad, peak() - begun)
except UsageError as error:
    print(peak() - begun, error)
"""


class TestBombs:
    def test_a_line_without_end_is_refused_before_it_is_held(self, tmp_path):
        """A GiB of one letter in 1 MB of gzip."""
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        with (tmp_path / "a.csv.gz").open("wb") as file:
            file.write(packer.compress(HEADER))
            letters = b"a" * (16 * MIB)
            for _ in range(64):
                file.write(packer.compress(letters))
            file.write(packer.flush())
        grown, _, message = run_alone(READ_ALL, str(tmp_path / "a.csv.gz")).partition(" ")
        assert "a line is longer than 64 MiB" in message
        assert int(grown) < 300

    @pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
    def test_a_line_over_64_mib_is_refused(self, tmp_path, name):
        start = HEADER if name == "a.csv" else b'{"globalUserId":"a","bonScore":1}\n'
        (tmp_path / name).write_bytes(start + b"a" * (65 * MIB) + b"\n")
        with pytest.raises(UsageError, match="a line is longer than 64 MiB"):
            plan_import([str(tmp_path / name)], BON)

    def test_a_line_below_it_is_a_bad_row(self, tmp_path):
        long = b"a" * (5 * MIB)
        (tmp_path / "a.csv").write_bytes(HEADER + long + b",1\nfan-1,1\n" + long + b"\nfan-2,0\n")
        results = [rows for part in plan_import([f"{tmp_path}/a.csv"], BON).ranges for rows in read_import(part)]
        assert [user for rows in results for user in rows.table["user"].to_pylist()] == ["fan-1", "fan-2"]
        assert [(row.reason, len(row.payload)) for rows in results for row in rows.bad] == [
            ("user_too_long", 5 * MIB + 2),
            ("malformed", 5 * MIB),
        ]

    def test_quotes_that_never_close_do_not_take_the_rest_of_the_file(self, tmp_path):
        lines = b"".join(b"fan-%d,0.5\n" % i for i in range(200_000))
        (tmp_path / "a.csv").write_bytes(HEADER + b'"open,1\n' + lines + b'x,"open\n' + lines)
        results = [rows for part in plan_import([f"{tmp_path}/a.csv"], BON).ranges for rows in read_import(part)]
        assert sum(rows.table.num_rows for rows in results) == 400_000
        assert [row.position.rpartition(" ")[2] for rows in results for row in rows.bad] == ["2", "200003"]

    def test_a_dictionary_of_long_values_is_not_repeated_in_memory(self, tmp_path):
        """One user id of 8 MiB, two hundred thousand times: 1.6 TiB if it were written out."""
        users = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 200_000), ["a" * (8 * MIB)])
        pq.write_table(
            pa.table({"globalUserId": users, "bonScore": pa.repeat(0.5, 200_000)}),
            tmp_path / "a.parquet",
            dictionary_pagesize_limit=64 * MIB,
            write_statistics=False,
        )
        assert (tmp_path / "a.parquet").stat().st_size < MIB
        code = READ_ALL.replace("len(result.bad)", "sum(row.reason == 'user_too_long' for row in result.bad)")
        rows, bad, grown = map(int, run_alone(code, str(tmp_path / "a.parquet")).split())
        assert (rows, bad) == (200_000, 200_000)
        assert grown < 500


def test_memory_stays_flat_over_millions_of_parquet_rows(tmp_path):
    """The peak of reading two million rows is that of reading two hundred thousand, and some."""
    peaks = {}
    for count in (200_000, 2_000_000):
        path = tmp_path / f"{count}.parquet"
        schema = pa.schema([("globalUserId", pa.string()), ("bonScore", pa.float64()), ("note", pa.string())])
        with pq.ParquetWriter(path, schema) as writer:
            for start in range(0, count, 200_000):
                numbers = pa.array(range(start, start + 200_000))
                columns = [numbers.cast(pa.string()), pa.repeat(0.5, 200_000), pa.repeat("x" * 50, 200_000)]
                writer.write_table(pa.table(columns, schema), row_group_size=200_000)
        rows, bad, peaks[count] = map(int, run_alone(READ_ALL, str(path)).split())
        assert (rows, bad) == (count, 0)
    assert peaks[2_000_000] < peaks[200_000] + 60, peaks
    assert peaks[2_000_000] < 250


def test_a_row_group_of_all_rows_is_not_held_whole(tmp_path):
    path = tmp_path / "a.parquet"
    users = pa.array([os.urandom(8).hex() for _ in range(1_000_000)])
    pq.write_table(
        pa.table({"globalUserId": users, "bonScore": pa.repeat(0.5, 1_000_000)}), path, row_group_size=1_000_000
    )
    rows, bad, grown = map(int, run_alone(READ_ALL, str(path)).split())
    assert (rows, bad) == (1_000_000, 0)
    assert grown < 250


def every_type() -> dict[str, pa.Array]:
    """Two values of each of Arrow's types that Parquet can hold, a null among them where it matters."""
    arrays = [
        pa.nulls(2),
        pa.array([True, None]),
        *(pa.array([1, None], kind()) for kind in (pa.int8, pa.int16, pa.int32, pa.int64)),
        *(pa.array([1, None], kind()) for kind in (pa.uint8, pa.uint16, pa.uint32, pa.uint64)),
        *(pa.array([0.5, None], kind()) for kind in (pa.float16, pa.float32, pa.float64)),
        *(pa.array(["1", None], kind()) for kind in (pa.string, pa.large_string, pa.string_view)),
        *(pa.array([b"1", None], kind()) for kind in (pa.binary, pa.large_binary, pa.binary_view)),
        pa.array([b"1", None], pa.binary(1)),
        *(pa.array([1, None], kind) for kind in (pa.decimal32(5, 2), pa.decimal128(9, 0), pa.decimal256(60, 2))),
        *(pa.array([1_760_000_000, None], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")),
        pa.array([20_000, None], pa.date32()),
        pa.array([1_760_000_000_000, None], pa.date64()),
        pa.array([time(1), None]),
        pa.array([timedelta(1), None]),
        pa.array([[1], None]),
        pa.array([[1], None], pa.list_(pa.int64(), 1)),
        pa.array([{"globalUserId": "a"}, None]),
        pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        pa.array(["1", None]).dictionary_encode(),
        pa.array([1, None]).dictionary_encode(),
    ]
    return {str(array.type): array for array in arrays}


@pytest.mark.parametrize("kind", [BON, CLUSTER], ids=str)
@pytest.mark.parametrize("column", ["globalUserId", "value", "updatedAt"])
@pytest.mark.parametrize("name", every_type())
def test_every_type_is_read_or_refused(tmp_path, kind, column, name):
    column = kind.value_column if column == "value" else column
    table = {"globalUserId": pa.array(["a", "b"]), kind.value_column: pa.array(["1", "1"])}
    table |= {column: every_type()[name], "nested": pa.array([{"globalUserId": 1, "x": [1]}] * 2)}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    try:
        plan = plan_import([f"{tmp_path}/a.parquet"], kind)
    except UsageError as error:
        assert f"the column {column} is of type" in str(error)
        return
    (rows,) = read_import(plan.ranges[0])
    assert rows.rows == 2 == rows.table.num_rows + len(rows.bad)
    assert all(column.null_count == 0 for column in rows.table.columns)


def test_columns_with_dots_and_nested_ones_of_the_same_name(tmp_path):
    table = {
        "bonScore.x": pa.array([9.0]),
        "nested": pa.array([{"bonScore": 7.0, "globalUserId": "wrong"}]),
        "globalUserId": pa.array(["a"]),
        "bonScore": pa.array([0.5]),
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    (rows,) = read_import(plan_import([f"{tmp_path}/a.parquet"], BON).ranges[0])
    assert rows.table.select(["user", "value"]).to_pylist() == [{"user": "a", "value": 0.5}]


def test_a_column_twice_in_parquet(tmp_path):
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array([0.5]), pa.array([0.5])], ["globalUserId", "bonScore", "bonScore"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="fill the same field"):
        plan_import([f"{tmp_path}/a.parquet"], BON)


def test_other_columns_twice_are_ignored(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"note,globalUserId,note,,bonScore,\nx,a,y,z,0.5,\n")
    (rows,) = read_import(plan_import([f"{tmp_path}/a.csv"], BON).ranges[0])
    assert rows.table["user"].to_pylist() == ["a"]


@pytest.mark.parametrize("seed", range(60))
def test_damaged_bytes_end_in_one_line_or_in_bad_rows(tmp_path, seed):
    """Whatever a few overwritten bytes do, nothing but our own errors comes out."""
    chance = random.Random(seed)
    lines = HEADER + b"".join(b'"fan-%d",0.5\n' % i for i in range(2_000))
    pq.write_table(
        pa.table({"globalUserId": [f"fan-{i}" for i in range(2_000)], "bonScore": [0.5] * 2_000}),
        tmp_path / "p.parquet",
    )
    contents = {
        "a.csv": lines,
        "a.csv.gz": gzip.compress(lines),
        "a.csv.zst": pa.compress(lines, "zstd", asbytes=True),
        "a.jsonl": b"".join(b'{"globalUserId":"fan-%d","bonScore":0.5}\n' % i for i in range(2_000)),
        "a.parquet": Path(tmp_path / "p.parquet").read_bytes(),
    }
    for name, data in contents.items():
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            for part in plan_import([str(tmp_path / name)], BON).ranges:
                for rows in read_import(part):
                    assert rows.rows == rows.table.num_rows + len(rows.bad)
        except UsageError as error:
            assert "\n" not in str(error)
