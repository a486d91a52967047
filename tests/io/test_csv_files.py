import csv
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fan_identity.domain.activity import decode_activity
from fan_identity.io.errors import UsageError
from fan_identity.io.files import plan_ranges, read_range

HEADER = "activityId,activityType,occurredAt,globalUserId,attributes.note"
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def read_all(tmp_path, data, **options):
    path = tmp_path / "activities.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    records = [r for part in plan_ranges([str(path)]) for batch in read_range(part, **options) for r in batch]
    text = path.read_bytes()
    for record in records:
        assert text.startswith(record.payload, int(record.position.removeprefix("byte ")))
    return records


def test_columns_fill_the_fields_of_the_wire_format(tmp_path):
    header = (
        "activityId,activityType,occurredAt,globalUserId,memberId,eventId,saleId,"
        "ipAddress,deviceId,context.userAgent,outcome,attributes.amount,channel,"
    )
    row = '1,login,2025-01-01T00:00:00Z,u1,,e1,,10.0.0.1,,"Mozilla (a, b)",failure,12,web,7'
    (record,) = read_all(tmp_path, f"{header}\n{row}\n")
    assert json.loads(record.body) == {
        "activityId": "1",
        "activityType": "login",
        "occurredAt": "2025-01-01T00:00:00Z",
        "globalUserId": "u1",
        "eventId": "e1",
        "channel": "web",
        "context": {"ipAddress": "10.0.0.1", "userAgent": "Mozilla (a, b)"},
        "attributes": {"outcome": "failure", "amount": "12"},
    }
    assert record.payload.decode() == row
    assert decode_activity(record.body).failed


def test_whole_context_and_attributes_columns_hold_json(tmp_path):
    header = "activityId,activityType,occurredAt,globalUserId,attributes,attributes.outcome"
    rows = ['1,login,1,u,"{""a"": 1}",failure', "2,login,1,u,[],", "3,login,1,u,oops,", "4,login,1,u,,"]
    records = read_all(tmp_path, "\n".join([header, *rows]))
    assert json.loads(records[0].body)["attributes"] == {"a": 1, "outcome": "failure"}
    assert [record.error for record in records[1:3]] == ["column attributes is not a JSON object"] * 2
    assert "attributes" not in json.loads(records[3].body)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("2,login,1", "the row has 3 fields, the header has 5"),
        ("2,login,1,u,n,more", "the row has 6 fields, the header has 5"),
        ("2,login,1,u,a\0b", "the row holds NUL bytes"),
        ('2,login,1,u,"open', "a quote is not closed"),
        ('2,login,1,u,"a"b', "a quote stands inside a field"),
        ('"2,login,1,u,n', "a quote is not closed"),
        ("2,login,1,u," + "x" * 1_100_000, "record is longer than 1 MiB"),
        ("2,login,1,u," + "x" * 200_000, "field larger than field limit (131072)"),
    ],
)
def test_bad_row_keeps_its_bytes_and_the_later_rows(tmp_path, row, error):
    records = read_all(tmp_path, f"{HEADER}\n1,login,1,u,n\n{row}\n3,login,1,u,n\n4,login,1,u,n\n")
    assert [(record.error, record.body is None) for record in records] == [
        (None, False),
        (error, True),
        (None, False),
        (None, False),
    ]
    assert records[1].payload == row.encode()


def test_bytes_that_are_not_utf8(tmp_path):
    records = read_all(tmp_path, HEADER.encode() + b"\n1,login,1,u,\xff\xfe\n2,login,1,u,n\n")
    assert (records[0].error, records[0].payload) == ("not UTF-8", b"1,login,1,u,\xff\xfe")
    assert records[1].error is None


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_quoted_newlines(tmp_path, ending):
    rows = ['1,login,1,u,"two' + ending + 'lines, and ""quotes"""', "", "2,login,1,u,n"]
    records = read_all(tmp_path, "\ufeff" + ending.join([HEADER, *rows]) + ending)
    assert [record.error for record in records] == [None, None]
    assert json.loads(records[0].body)["attributes"]["note"] == f'two{ending}lines, and "quotes"'
    assert records[0].payload.decode() == rows[0]


def test_rows_behind_an_open_quote_are_read_again(tmp_path):
    rows = [f"{i},login,1,u,n" for i in range(30_000)]
    rows[10] = '10,login,1,u,"open'
    rows[20] = '20,login,"1,u,n'
    rows[29_990] = '29990,login,1,u,"never closed'
    records = read_all(tmp_path, "\n".join([HEADER, *rows]))
    assert [record.payload.decode() for record in records] == rows
    assert [i for i, record in enumerate(records) if record.error] == [10, 20, 29_990]


def test_growth_is_not_read_but_an_open_row_is_finished(tmp_path):
    path = tmp_path / "activities.csv"
    path.write_text(f'{HEADER}\n1,login,1,u,"begun\n')
    ranges = plan_ranges([str(path)])
    with path.open("a") as file:
        file.write('ended"\n2,login,1,u,n\n')
    (record,) = next(read_range(ranges[0]))
    assert json.loads(record.body)["attributes"]["note"] == "begun\nended"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("activityId,activityType,occurredAt,globalUserId,eventId,eventId", "same field"),
        ("activityId,activityType,occurredAt,globalUserId,ipAddress,context.ipAddress", "same field"),
        ("activityId;activityType;occurredAt;globalUserId", "misses the columns activityId, activityType"),
        ("a\udcff,b", "UTF-8"),
    ],
)
def test_bad_headers(tmp_path, header, message):
    with pytest.raises(UsageError, match=message):
        read_all(tmp_path, header.encode("utf-8", "surrogateescape") + b"\n1,2\n")


def test_columns_without_a_name_are_left_out(tmp_path):
    (record,) = read_all(tmp_path, ",activityId,activityType,occurredAt,globalUserId,\n7,1,login,2,u,8\n")
    assert json.loads(record.body) == {
        "activityId": "1",
        "activityType": "login",
        "occurredAt": "2",
        "globalUserId": "u",
    }


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.sampled_from(
    ['"', ",", "\r\n", '""', "a\nb"]
)


@same_folder
@given(
    st.lists(st.tuples(cell, cell), max_size=8), st.integers(1, 3), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
)
def test_what_the_csv_module_writes_is_read(tmp_path, cells, batch, quoting):
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting)
    writer.writerow(["activityId", "activityType", "occurredAt", "globalUserId", "first", "second"])
    for number, pair in enumerate(cells):
        writer.writerow([number, "login", 1, "u", *pair])
    records = read_all(tmp_path, text.getvalue(), batch_records=batch)
    read = [json.loads(record.body) for record in records]
    assert [(row.get("first", ""), row.get("second", "")) for row in read] == cells
    assert [row["activityId"] for row in read] == [str(i) for i in range(len(cells))]


@same_folder
@given(st.lists(st.text('ab",\n\r\0é ', max_size=25), max_size=8))
def test_no_input_stops_the_reading_or_loses_bytes(tmp_path, rows):
    body = "\n".join(rows)
    records = read_all(tmp_path, f"{HEADER}\n{body}")
    assert all((record.body is None) == (record.error is not None) for record in records)
    kept = "".join(record.payload.decode() for record in records)
    assert [c for c in kept if not c.isspace()] == [c for c in body if not c.isspace()]
