"""Reading: what each cell becomes, why a row is bad and where it stands; whatever is written comes back."""

import csv
import decimal
import gzip
import io
import json
import math
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.domain.imports import ImportKind
from fan_identity.io.clock import now_ms
from fan_identity.io.import_files import plan_import, read_import

BON, CLUSTER = ImportKind.BOT_OR_NOT, ImportKind.CLUSTER
T = 1_760_000_000_123


def rows_of(path, kind=BON, batch_rows=65_536, **settings):
    return [
        rows for part in plan_import([str(path)], kind, **settings).ranges for rows in read_import(part, batch_rows)
    ]


def good(results):
    return [(row["user"], row["value"], row["updatedAt"]) for rows in results for row in rows.table.to_pylist()]


def bad(results):
    return [(row.position.rpartition("/")[2], row.reason) for rows in results for row in rows.bad]


def errors(results):
    return [row.error for rows in results for row in rows.bad]


def parquet(folder, kind=BON, **columns):
    filled = {"globalUserId": ["a", "b"], kind.value_column: ["1", "0"], "updatedAt": [T, T], **columns}
    path = folder / "a.parquet"
    pq.write_table(pa.table(filled), path)
    return path


STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]


class TestUsers:
    @pytest.mark.parametrize("kind", STRINGS, ids=str)
    def test_text_of_any_type(self, tmp_path, kind):
        column = (
            pa.array(["ä b", "7"]).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(["ä b", "7"], kind)
        )
        assert [user for user, _, _ in good(rows_of(parquet(tmp_path, globalUserId=column)))] == ["ä b", "7"]

    @pytest.mark.parametrize(
        ("column", "users"),
        [
            (pa.array([12, -3]), ["12", "-3"]),
            (pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
            (pa.array([12.0, 1e15]), ["12", "1000000000000000"]),
            (pa.array([12.0, 3.0], pa.float32()), ["12", "3"]),
            (pa.array([12.0, 12.5]), ["12", "12.5"]),
            (pa.array([decimal.Decimal(12), decimal.Decimal(13)]), ["12", "13"]),
            (pa.array([b"abcd", b"efgh"], pa.binary(4)), ["abcd", "efgh"]),
        ],
    )
    def test_numbers_become_text_as_those_of_activities_do(self, tmp_path, column, users):
        assert [user for user, _, _ in good(rows_of(parquet(tmp_path, globalUserId=column)))] == users

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([None, "b"]),
            pa.array([" \t\u2003", "b"]),
            pa.array(["", "b"]),
            pa.array([math.nan, 1.0]),
            pa.array([None, 1]),
        ],
    )
    def test_blank(self, tmp_path, column):
        results = rows_of(parquet(tmp_path, globalUserId=column))
        assert bad(results) == [("a.parquet row 0", "blank_user")]
        assert len(good(results)) == 1

    def test_all_null(self, tmp_path):
        results = rows_of(parquet(tmp_path, globalUserId=pa.nulls(2)))
        assert [reason for _, reason in bad(results)] == ["blank_user"] * 2
        assert results[0].rows == 2

    def test_as_long_as_the_limit_in_bytes(self, tmp_path):
        fits, over = "ä" * 5_120, "ä" * 5_120 + "b"
        results = rows_of(parquet(tmp_path, globalUserId=[fits, over]))
        assert [user for user, _, _ in good(results)] == [fits]
        assert bad(results) == [("a.parquet row 1", "user_too_long")]

    @pytest.mark.parametrize("column", ["broken string", pa.array([b"a\xff", b"b"])])
    def test_what_is_not_utf8(self, tmp_path, column):
        if isinstance(column, str):
            offsets = pa.array([0, 2, 3], pa.int32()).buffers()[1]
            column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xffb")])
        results = rows_of(parquet(tmp_path, globalUserId=column))
        assert bad(results) == [("a.parquet row 0", "malformed")]
        assert json.loads(results[0].bad[0].payload) == {"globalUserId": "a\\xff", "bonScore": "1", "updatedAt": T}
        assert [user for user, _, _ in good(results)] == ["b"]


class TestScores:
    @pytest.mark.parametrize(
        "column",
        [
            pa.array([0.25, 1.0]),
            pa.array([0.25, 1.0], pa.float32()),
            pa.array([0.25, 1.0], pa.float16()),
            pa.array([decimal.Decimal("0.25"), decimal.Decimal("1.00")]),
            pa.array(["0.25", " 1 "]),
            pa.array(["25e-2", "1."]),
            pa.array([0.25, 1.0]).dictionary_encode(),
            pa.array(["0.25", "1"]).dictionary_encode(),
        ],
        ids=str,
    )
    def test_numbers_of_any_type(self, tmp_path, column):
        assert [value for _, value, _ in good(rows_of(parquet(tmp_path, bonScore=column)))] == [0.25, 1.0]

    @pytest.mark.parametrize("column", [pa.array([1, 0]), pa.array([1, 0], pa.uint8()), pa.array([1, 0], pa.uint64())])
    def test_whole_numbers(self, tmp_path, column):
        assert [value for _, value, _ in good(rows_of(parquet(tmp_path, bonScore=column)))] == [1.0, 0.0]

    def test_minus_zero_is_zero(self, tmp_path):
        values = [value for _, value, _ in good(rows_of(parquet(tmp_path, bonScore=pa.array([-0.0, 0.0]))))]
        assert [math.copysign(1, value) for value in values] == [1, 1]

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (math.nan, "not_a_number"),
            (math.inf, "out_of_range"),
            (-math.inf, "out_of_range"),
            (1.0000001, "out_of_range"),
            (-1e-12, "out_of_range"),
            (None, "missing_value"),
            ("nan", "not_a_number"),
            ("-Infinity", "out_of_range"),
            ("1e999", "out_of_range"),
            ("", "missing_value"),
            ("  ", "missing_value"),
            ("0,5", "malformed"),
            ("0x1", "malformed"),
            ("1_0", "malformed"),
            ("\u0660", "malformed"),
            ("high", "malformed"),
            (pa.scalar(2**64 - 1, pa.uint64()), "out_of_range"),
        ],
    )
    def test_bad_ones(self, tmp_path, value, reason):
        fine = "0.5" if isinstance(value, str) else pa.scalar(0, pa.uint64()) if isinstance(value, pa.Scalar) else 0.0
        results = rows_of(parquet(tmp_path, bonScore=pa.array([fine, value])))
        assert bad(results)[-1] == ("a.parquet row 1", reason)
        assert "bonScore" in errors(results)[-1]
        assert len(good(results)) == 1


class TestClusters:
    def test_text_and_numbers(self, tmp_path):
        assert [v for _, v, _ in good(rows_of(parquet(tmp_path, CLUSTER, clusterId=["x y", "7"]), CLUSTER))] == [
            "x y",
            "7",
        ]
        assert [v for _, v, _ in good(rows_of(parquet(tmp_path, CLUSTER, clusterId=[7, 8]), CLUSTER))] == ["7", "8"]
        assert [v for _, v, _ in good(rows_of(parquet(tmp_path, CLUSTER, clusterId=[7.0, 8.0]), CLUSTER))] == ["7", "8"]

    def test_bad_ones(self, tmp_path):
        results = rows_of(
            parquet(
                tmp_path,
                CLUSTER,
                globalUserId=["a", "b", "c", "d"],
                clusterId=["ä" * 256, "ä" * 257, " ", None],
                updatedAt=[T] * 4,
            ),
            CLUSTER,
        )
        assert [reason for _, reason in bad(results)] == ["cluster_too_long", "missing_value", "missing_value"]
        assert len(good(results)) == 1


class TestTimes:
    @pytest.mark.parametrize(
        "column",
        [
            pa.array([T, T]),
            pa.array([T, T], pa.uint64()),
            pa.array([float(T), T + 0.9]),
            pa.array([T, T]).cast(pa.timestamp("ms")),
            pa.array([T, T]).cast(pa.timestamp("ms", "Europe/Berlin")),
            pa.array([T * 1_000 + 999, T * 1_000]).cast(pa.timestamp("us")),
            pa.array([T * 1_000_000 + 999_999, T * 1_000_000]).cast(pa.timestamp("ns", "UTC")),
            pa.array([str(T), "2025-10-09T08:53:20.123Z"]),
            pa.array(["2025-10-09T10:53:20.123+02:00", "2025-10-09 08:53:20.123"]),
            pa.array(["2025-10-09T08:53:20.123456", b"20251009T085320.123Z".decode()]),
        ],
        ids=lambda column: str(column.type),
    )
    def test_times_of_any_type(self, tmp_path, column):
        assert [time for _, _, time in good(rows_of(parquet(tmp_path, updatedAt=column)))] == [T, T]

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([date(2025, 10, 9)] * 2),
            pa.array([date(2025, 10, 9)] * 2, pa.date64()),
            pa.array([datetime(2025, 10, 9, tzinfo=UTC)] * 2, pa.timestamp("s")),
            pa.array(["2025-10-09", "20251009"]),
        ],
        ids=lambda column: str(column.type),
    )
    def test_dates_and_seconds(self, tmp_path, column):
        assert [time for _, _, time in good(rows_of(parquet(tmp_path, updatedAt=column)))] == [1_759_968_000_000] * 2

    @pytest.mark.parametrize(
        "column", [pa.nulls(2), pa.array([None, None], pa.int64()), ["", " "], [math.nan, math.nan]]
    )
    def test_absent_ones_are_the_files(self, tmp_path, column):
        path = parquet(tmp_path, updatedAt=column)
        assert {time for _, _, time in good(rows_of(path))} == {path.stat().st_mtime_ns // 1_000_000}

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (946_684_799_999, "too_old"),
            (0, "too_old"),
            (-(2**63), "too_old"),
            (2**63 - 1, "in_future"),
            (pa.scalar(2**64 - 1, pa.uint64()), "in_future"),
            (math.inf, "in_future"),
            (-math.inf, "too_old"),
            ("1970-01-01", "too_old"),
            ("9999-12-31", "in_future"),
            ("yesterday", "malformed"),
            ("9" * 30, "malformed"),
            (pa.scalar(2**63 - 1, pa.timestamp("ms")), "in_future"),
            (pa.scalar(-(2**63), pa.timestamp("ns")), "too_old"),
            (pa.scalar(2**31 - 1, pa.date32()), "in_future"),
        ],
    )
    def test_bad_ones(self, tmp_path, value, reason):
        results = rows_of(parquet(tmp_path, globalUserId=["a"], bonScore=[1], updatedAt=pa.array([value])))
        assert bad(results) == [("a.parquet row 0", reason)]
        assert "updatedAt" in errors(results)[0]

    def test_bounds(self, tmp_path):
        now = now_ms()
        path = parquet(tmp_path, updatedAt=[946_684_800_000, now + 299_000])
        assert [time for _, _, time in good(rows_of(path))] == [946_684_800_000, now + 299_000]
        assert bad(rows_of(parquet(tmp_path, updatedAt=[T, now + 600_000]))) == [("a.parquet row 1", "in_future")]


def test_parquet_rows_are_counted_over_row_groups_and_batches(tmp_path):
    scores = [2.0 if i % 97 == 0 else 0.5 for i in range(1_000)]
    table = pa.table(
        {"bonScore": scores, "globalUserId": [f"u{i}" for i in range(1_000)], "extra": [[{"x": 1}]] * 1_000}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=70)
    results = rows_of(tmp_path / "a.parquet", batch_rows=33)
    assert bad(results) == [(f"a.parquet row {i}", "out_of_range") for i in range(0, 1_000, 97)]
    assert json.loads(results[0].bad[0].payload) == {"globalUserId": "u0", "bonScore": 2.0}
    assert max(rows.rows for rows in results) <= 33
    assert sum(rows.rows for rows in results) == 1_000


def test_a_row_is_bad_once_and_for_its_first_fault(tmp_path):
    results = rows_of(parquet(tmp_path, globalUserId=["", "b"], bonScore=[7.0, 7.0], updatedAt=[0, 0]))
    assert bad(results) == [("a.parquet row 0", "blank_user"), ("a.parquet row 1", "out_of_range")]
    assert good(results) == []


CSV_ROWS = [
    b"fan-1,0.5",
    b"",
    b"fan-2,oops",
    b'"fan, ""3""",0.25',
    b'"line\none",1',
    b"short",
    b"too,many,cells",
    b'"open,1',
    b"fan-4,1",
    b"nul\0,1",
    b"latin\xe4,1",
    b'mid"quote,1',
    b'"x"y,1',
    b",1",
    b"   ",
    b"last,0",
]
CSV_BAD = [
    ("a.csv line 4", "malformed", b"fan-2,oops"),
    ("a.csv line 8", "malformed", b"short"),
    ("a.csv line 9", "malformed", b"too,many,cells"),
    ("a.csv line 10", "malformed", b'"open,1'),
    ("a.csv line 12", "malformed", b"nul\0,1"),
    ("a.csv line 13", "malformed", b"latin\xe4,1"),
    ("a.csv line 15", "malformed", b'"x"y,1'),
    ("a.csv line 16", "blank_user", b",1"),
]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_rows_that_cannot_be_read_are_bad_by_line(tmp_path, ending, mark):
    (tmp_path / "a.csv").write_bytes(mark + ending.join([b"globalUserId,bonScore", *CSV_ROWS]))
    results = rows_of(tmp_path / "a.csv")
    assert [user for user, _, _ in good(results)] == ["fan-1", 'fan, "3"', "line\none", "fan-4", 'mid"quote', "last"]
    told = [(row.position.rpartition("/")[2], row.reason, row.payload) for rows in results for row in rows.bad]
    assert told == CSV_BAD


JSONL_ROWS = [
    b'{"globalUserId":"fan-1","bonScore":0.5}',
    b"",
    b'{"globalUserId":"fan-2"}',
    b"oops",
    b"  ",
    b'{"globalUserId":17,"bonScore":"0.25","updatedAt":"2025-10-09"}',
    b'{"globalUserId":["x"],"bonScore":1}',
    b'{"globalUserId":true,"bonScore":1}',
    b'{"globalUserId":"fan-3","bonScore":{}}',
    b'{"globalUserId":"fan-4","bonScore":1}{"globalUserId":"fan-5","bonScore":1}',
    b'{"globalUserId":"fan\xff","bonScore":1}',
    b'{"globalUserId":"fan\\ud800","bonScore":1}',
    b'{"globalUserId":"nul\\u0000","bonScore":1}',
    b'{"globalUserId":"fan-6","bonScore":NaN}',
    b'{"globalUserId":"fan-6","bonScore":1e999}',
    b'{"globalUserId":"fan-7","global_user_id":"fan-8","bonScore":1}',
    b'{"global_user_id":12.0,"bon_score":1,"updated_at":20251009}',
    b'{"globalUserId":123456789012345678901234567890,"bonScore":1,"updatedAt":1760000000123.5}',
    b"[1]",
    b"null",
    b"[" * 100_000,
    b'{"globalUserId":"last","bonScore":0}',
]


def test_json_lines_that_cannot_be_read_are_bad_by_line(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(JSONL_ROWS))
    results = rows_of(tmp_path / "a.jsonl")
    assert [(user, value) for user, value, _ in good(results)] == [
        ("fan-1", 0.5),
        ("17", 0.25),
        ("nul\0", 1.0),
        ("123456789012345678901234567890", 1.0),
        ("last", 0.0),
    ]
    assert {user: time for user, _, time in good(results)}["17"] == 1_759_968_000_000
    assert bad(results) == [
        ("a.jsonl line 3", "missing_value"),
        *((f"a.jsonl line {line}", "malformed") for line in (4, 7, 8, 9, 10, 11, 12, 14, 15, 16)),
        ("a.jsonl line 17", "too_old"),
        *((f"a.jsonl line {line}", "malformed") for line in (19, 20, 21)),
    ]
    assert [row.payload for rows in results for row in rows.bad][1] == b"oops"


texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(lambda text: text.strip())
times = st.integers(946_684_800_000, T)
imports = st.one_of(
    st.tuples(st.just(BON), st.lists(st.tuples(texts, st.floats(0, 1), times), min_size=1, max_size=30)),
    st.tuples(st.just(CLUSTER), st.lists(st.tuples(texts, texts, times), min_size=1, max_size=30)),
)


def written(name, kind, rows, draw):
    """The rows in a format, as other programs write it."""
    columns = draw(st.permutations(["globalUserId", kind.value_column, "updatedAt", "extra"]))
    cells = [
        dict(zip(("globalUserId", kind.value_column, "updatedAt"), row, strict=True), extra='é,"\n') for row in rows
    ]
    if name == "parquet":
        sink = io.BytesIO()
        table = pa.table({column: [cell[column] for cell in cells] for column in columns})
        pq.write_table(table, sink, row_group_size=draw(st.integers(1, 40)))
        return sink.getvalue()
    if name.startswith("csv"):
        text = io.StringIO(newline="")
        quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]))
        # With plain newlines csv.writer leaves carriage returns unquoted, which no reader takes back.
        ending = "\r\n" if quoting == csv.QUOTE_MINIMAL else draw(st.sampled_from(["\n", "\r\n"]))
        writer = csv.DictWriter(text, columns, quoting=quoting, lineterminator=ending, extrasaction="ignore")
        if draw(st.booleans()):
            writer.fieldnames = columns = [column for column in columns if column != "extra"]
        writer.writeheader()
        writer.writerows(cells)
        contents = text.getvalue().encode()
    else:
        ascii_only = draw(st.booleans())
        contents = b"".join(
            json.dumps({column: cell[column] for column in columns}, ensure_ascii=ascii_only).encode() + b"\n"
            for cell in cells
        )
    if name.endswith(".gz"):
        return gzip.compress(contents)
    return pa.compress(contents, "zstd", asbytes=True) if name.endswith(".zst") else contents


@pytest.mark.parametrize("name", ["parquet", "csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "jsonl.zst"])
@settings(max_examples=60, deadline=None)
@given(data=st.data(), imported=imports)
def test_what_is_written_comes_back(tmp_path_factory, name, data, imported):
    kind, rows = imported
    if name.startswith("csv"):
        rows = [tuple(cell.replace("\0", "0") if isinstance(cell, str) else cell for cell in row) for row in rows]
    path = tmp_path_factory.mktemp("import") / f"a.{name}"
    path.write_bytes(written(name, kind, rows, data.draw))
    results = rows_of(path, kind, data.draw(st.integers(1, 40)), target_bytes=data.draw(st.integers(1, 2_000)))
    assert errors(results) == []
    assert good(results) == rows


@settings(max_examples=300, deadline=None)
@given(
    cells=st.lists(st.text('ab,"\r\n 0.5', max_size=9), min_size=1, max_size=12), ending=st.sampled_from(["\n", "\r\n"])
)
def test_whole_columns_and_single_rows_agree(tmp_path_factory, cells, ending):
    """The fast way through CSV gives what the slow one does: an unreadable row at the end makes all of it slow."""
    folder = tmp_path_factory.mktemp("import")
    text = "globalUserId,bonScore" + ending + "".join(f"{cell}{ending}" for cell in cells)
    text += "last,1" + ending  # a file of blank lines only is refused
    told = []
    for slow in ("", "nul\0,1"):
        (folder / "a.csv").write_bytes((text + slow).encode())
        results = rows_of(folder / "a.csv")
        told.append(
            (
                [(user, value) for user, value, _ in good(results)],
                [
                    (row.position, row.reason, row.payload)
                    for rows in results
                    for row in rows.bad
                    if b"\0" not in row.payload
                ],
            )
        )
    assert told[0] == told[1]
