import datetime as dt
import decimal
import json
import math
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fan_identity.domain.activity import decode_activity
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.files import count_records, plan_ranges, read_range

MOMENT = dt.datetime(2025, 6, 14, 11, 0, 0, 123_456)
MOMENT_MS = 1_749_898_800_123


def write(tmp_path, columns, **options) -> str:
    path = str(tmp_path / "activities.parquet")
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, path, **options)
    return path


def base(count: int = 1, **columns):
    return {
        "activityId": pa.array([str(i) for i in range(count)]),
        "activityType": pa.array(["login"] * count),
        "occurredAt": pa.array([1] * count),
        "globalUserId": pa.array(["u"] * count),
        **columns,
    }


def read_all(path, target_bytes=1 << 24, **options):
    ranges = plan_ranges([path], target_bytes=target_bytes)
    return [record for part in ranges for batch in read_range(part, **options) for record in batch]


def read_one(tmp_path, **columns):
    (record,) = read_all(write(tmp_path, base(**columns)))
    assert record.error is None
    assert record.payload == record.body
    return json.loads(record.body)


def test_flat_columns(tmp_path):
    row = read_one(
        tmp_path,
        memberId=pa.array([None], pa.string()),
        eventId=pa.array(["e"]).dictionary_encode(),
        ipAddress=pa.array(["10.0.0.1"], pa.large_string()),
        outcome=pa.array(["failure"]),
        **{"attributes.amount": pa.array([12])},
        channel=pa.array(["web"]),
    )
    assert row == {
        "activityId": "0",
        "activityType": "login",
        "occurredAt": 1,
        "globalUserId": "u",
        "eventId": "e",
        "channel": "web",
        "context": {"ipAddress": "10.0.0.1"},
        "attributes": {"outcome": "failure", "amount": 12},
    }


def test_nested_structs(tmp_path):
    context = pa.array([{"ipAddress": "a", "deviceId": 7}, None, {"ipAddress": None, "deviceId": 8}])
    attributes = pa.array([{"outcome": "failure", "when": MOMENT}, {"outcome": "x", "when": None}, None])
    rows = [json.loads(r.body) for r in read_all(write(tmp_path, base(3, context=context, attributes=attributes)))]
    assert [row.get("context") for row in rows] == [{"ipAddress": "a", "deviceId": "7"}, None, {"deviceId": "8"}]
    assert [row.get("attributes") for row in rows] == [
        {"outcome": "failure", "when": MOMENT_MS},
        {"outcome": "x"},
        None,
    ]


def test_attributes_as_a_map(tmp_path):
    kind = pa.map_(pa.string(), pa.string())
    assert read_one(tmp_path, attributes=pa.array([[("outcome", "failure")]], kind))["attributes"] == {
        "outcome": "failure"
    }


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([12345678901234567]), "12345678901234567"),
        (pa.array([12.0]), "12"),
        (pa.array([uuid.UUID(int=7).bytes], pa.binary(16)).cast(pa.binary(16)), None),
        (pa.array([b"abc"]), "abc"),
        (pa.array([decimal.Decimal("12.50")]), "12.50"),
        (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=7).bytes], pa.binary(16))),
            str(uuid.UUID(int=7)),
        ),
    ],
)
def test_ids_become_text(tmp_path, ids, expected):
    if expected is None:  # sixteen bytes that happen to be UTF-8
        expected = uuid.UUID(int=7).bytes.decode()
    assert read_one(tmp_path, memberId=ids)["memberId"] == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_timestamps_become_epoch_milliseconds(tmp_path, unit, zone):
    moment = MOMENT.replace(microsecond=0) if unit == "s" else MOMENT
    column = pa.array([moment], pa.timestamp("us")).cast(pa.timestamp(unit), safe=False)
    column = column.cast(pa.int64()).cast(pa.timestamp(unit, zone))
    columns = base()
    columns["occurredAt"] = column
    (record,) = read_all(write(tmp_path, columns))
    expected = MOMENT_MS // 1_000 * 1_000 if unit == "s" else MOMENT_MS
    assert decode_activity(record.body).time_ms == expected


def test_times_before_1970_round_down_and_dates_stay_text(tmp_path):
    early = pa.array([-1_500], pa.timestamp("us"))
    row = read_one(tmp_path, attributes=pa.array([{"x": 1}]), early=early, day=pa.array([MOMENT.date()]))
    assert (row["early"], row["day"]) == (-2, "2025-06-14")


def test_nan_and_null_are_absent_and_the_rest_travels(tmp_path):
    row = read_one(
        tmp_path,
        nan=pa.array([math.nan]),
        infinite=pa.array([math.inf]),
        null=pa.nulls(1),
        price=pa.array([decimal.Decimal("1.10")]),
        flag=pa.array([True]),
        blob=pa.array(["é".encode()]),
        clock=pa.array([dt.time(1, 2, 3)]),
        many=pa.array([[1.0, math.nan, None]]),
        deep=pa.array([{"day": MOMENT.date(), "blobs": [b"x"]}]),
    )
    for name in ("activityId", "activityType", "occurredAt", "globalUserId"):
        del row[name]
    assert row == {
        "price": "1.10",
        "flag": True,
        "blob": "é",
        "clock": "01:02:03",
        "many": [1.0, None, None],
        "deep": {"day": "2025-06-14", "blobs": ["x"]},
    }


def bad_text() -> pa.Array:
    """A string column whose second value is not UTF-8, as some writers make them."""
    offsets = pa.py_buffer(bytes(pa.array([0, 1, 3, 4], pa.int32()).buffers()[1]))
    return pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xff\xfeb")])


@pytest.mark.parametrize("column", [bad_text(), pa.array([b"a", b"\xff\xfe", b"b"])])
def test_text_that_is_not_utf8_is_an_error_of_its_record(tmp_path, column):
    records = read_all(write(tmp_path, base(3, note=column)))
    assert [record.error for record in records] == [None, "column 'note' is not UTF-8 text", None]
    assert records[1].body is None
    assert json.loads(records[1].payload)["activityId"] == "1"
    assert json.loads(records[2].body)["note"] == "b"


def test_value_that_is_no_object_is_an_error_of_its_record(tmp_path):
    records = read_all(write(tmp_path, base(2, attributes=pa.array(['{"a":1}', "oops"]))))
    assert json.loads(records[0].body)["attributes"] == {"a": 1}
    assert (records[1].body, records[1].error) == (None, "column attributes is not a JSON object")
    assert b"oops" in records[1].payload


def test_too_long_record(tmp_path):
    records = read_all(write(tmp_path, base(2, note=pa.array(["x" * 1_100_000, "y"]))))
    assert [record.error for record in records] == ["record is longer than 1 MiB", None]


@pytest.mark.parametrize("target", [1, 4_000, 1 << 24])
@pytest.mark.parametrize("batch", [1, 7, 500])
def test_any_split_reads_the_same_rows(tmp_path, target, batch):
    path = write(tmp_path, base(1_000, extra=pa.array(range(1_000))), row_group_size=90)
    records = read_all(path, target, batch_records=batch)
    assert [json.loads(record.body)["extra"] for record in records] == list(range(1_000))
    assert [record.position for record in records] == [f"row {i}" for i in range(1_000)]
    ranges = plan_ranges([path], target_bytes=target)
    assert len(ranges) == 12 if target == 1 else len(ranges) <= 12
    assert count_records(ranges) == 1_000
    assert max(len(b) for part in ranges for b in read_range(part, batch)) <= batch


def test_no_rows(tmp_path):
    assert read_all(write(tmp_path, base(0))) == []


def test_missing_columns_are_named(tmp_path):
    path = write(tmp_path, {"activityId": pa.array(["1"]), "when": pa.array([1])})
    with pytest.raises(
        UsageError, match="misses the columns activityType, occurredAt, globalUserId; found: activityId, when"
    ):
        plan_ranges([path])


@pytest.mark.parametrize("keep", [3, 100, -4])
def test_torn_file_is_refused(tmp_path, keep):
    path = Path(write(tmp_path, base(100)))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match="Parquet") as caught:
        plan_ranges([str(path)])
    assert "\n" not in str(caught.value)


def test_damaged_page_is_named(tmp_path):
    path = Path(
        write(tmp_path, base(5_000, note=pa.array([uuid.UUID(int=i * 7**40 % 2**128).hex for i in range(5_000)])))
    )
    ranges = plan_ranges([str(path)])
    data = bytearray(path.read_bytes())
    data[5_000 : len(data) - 5_000] = b"\xff" * (len(data) - 10_000)
    path.write_bytes(data)
    with pytest.raises(UsageError, match="row group 0 is damaged") as caught:
        [batch for part in ranges for batch in read_range(part)]
    assert "\n" not in str(caught.value)


def test_vanished_file(tmp_path):
    path = write(tmp_path, base())
    ranges = plan_ranges([path])
    Path(path).unlink()
    with pytest.raises(BackendUnavailableError, match="activities"):
        next(read_range(ranges[0]))
    with pytest.raises(BackendUnavailableError, match="activities"):
        count_records(ranges)
