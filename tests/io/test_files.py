import os
import pickle
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fan_identity.io import text_lines
from fan_identity.io.errors import BackendUnavailableError, FanIdentityError, UsageError
from fan_identity.io.files import FileFormat, count_records, detect_format, plan_ranges, read_range

LOG_LINE = b'10.0.0.1 - - [17/May/2025:10:05:03 +0000] "GET / HTTP/1.1" 200 5 "-" "Mozilla/5.0"'
CSV_HEADER = b"activityId,activityType,occurredAt,globalUserId"
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def read_all(ranges, **options):
    return [record for part in ranges for batch in read_range(part, **options) for record in batch]


def write(folder: Path, data: bytes, name: str = "input.jsonl") -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


def payloads(path: str, **options) -> list[bytes]:
    return [record.payload for record in read_all(plan_ranges([path]), **options)]


# --- errors


@pytest.mark.parametrize(("kind", "code"), [(UsageError, 2), (BackendUnavailableError, 3)])
def test_errors_survive_pickling(kind, code):
    copy = pickle.loads(pickle.dumps(kind("file: says why")))
    assert (type(copy), str(copy), copy.exit_code) == (kind, "file: says why", code)
    assert isinstance(copy, FanIdentityError)


# --- formats


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.jsonl", b"{}", FileFormat.JSONL),
        ("a.NDJSON", b"anything", FileFormat.JSONL),
        ("a.json", b"{}", FileFormat.JSONL),
        ("a.csv", b"anything", FileFormat.CSV),
        ("a.parquet", b"anything", FileFormat.PARQUET),
        ("a.log", LOG_LINE + b"\n", FileFormat.ACCESS_LOG),
        ("a.log", b'\xef\xbb\xbf\n\n{"activityId":"1"}\n', FileFormat.JSONL),
        ("a.log", b"damaged first line\n" + LOG_LINE, FileFormat.ACCESS_LOG),
        ("access.log.1", LOG_LINE, FileFormat.ACCESS_LOG),
        ("activities", b'  {"activityId":"1"}\r\n', FileFormat.JSONL),
        ("activities.txt", CSV_HEADER + b"\n", FileFormat.CSV),
        ("activities.dat", b"PAR1....", FileFormat.PARQUET),
    ],
)
def test_format_is_told_by_suffix_or_contents(tmp_path, name, data, expected):
    assert detect_format(write(tmp_path, data, name)) is expected


@pytest.mark.parametrize(
    ("name", "data"), [("a.log", b"2025-01-01 INFO started\n"), ("a.txt", b"hello"), ("b", b"\n\n")]
)
def test_unclear_format_names_the_flag(tmp_path, name, data):
    with pytest.raises(UsageError, match="--format"):
        detect_format(write(tmp_path, data, name))


# --- what is refused before anything is read


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b"\x1f\x8b\x08\0", "cut off"),
        ("a.jsonl", b"BZh91AY", "bunzip2"),
        ("a.jsonl", '{"a":1}'.encode("utf-16"), "UTF-16"),
        ("a.jsonl", b"PAR1xxxx", "--format parquet"),
        ("a.json", b'[{"a":1},\n{"a":2}]', "jq"),
        ("a.json", b'[\n  {"a":1}\n]', "jq"),
        ("a.json", b'{\n  "a": 1\n}', "jq"),
        ("a.csv", b"activityId,when\n1,2\n", "activityType, occurredAt, globalUserId; found: activityId, when"),
        ("a.csv", b'activityId,"x\n1,2\n', "header"),
        ("a.parquet", b"PAR1 and then nothing", "Parquet"),
    ],
)
def test_bad_inputs_are_refused(tmp_path, name, data, message):
    good = write(tmp_path, b"{}\n", "good.jsonl")
    with pytest.raises(UsageError, match=message) as caught:
        plan_ranges([good, write(tmp_path, data, name)])
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}/missing.jsonl", "no such file"),
        ("{}", "is a directory; name the files"),
        ("{}/good.jsonl/below", "cannot be read"),
        ("{}/zero\0byte", "cannot be read"),
        ("s3://bucket/key", "local files"),
        ("file:relative.jsonl", "file:///"),
        ("", "name the files"),
        ("/dev/null", "not a regular file"),
        ("{}/two\nlines", "no such file"),
    ],
)
def test_bad_paths_are_refused(tmp_path, path, message):
    write(tmp_path, b"{}\n", "good.jsonl")
    with pytest.raises(UsageError, match=message) as caught:
        plan_ranges([path.format(tmp_path)])
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_refused(tmp_path):
    path = write(tmp_path, b"{}\n")
    Path(path).chmod(0)
    with pytest.raises(UsageError, match="permissions"):
        plan_ranges([path])


def test_given_format_wins_over_the_suffix(tmp_path):
    path = write(tmp_path, b'{"a":1}\n', "activities.csv")
    assert [r.body for r in read_all(plan_ranges([path], FileFormat.JSONL))] == [b'{"a":1}']


def test_file_addresses_and_relative_paths(tmp_path, monkeypatch):
    path = write(tmp_path, b"{}\n", "with space.jsonl")
    monkeypatch.chdir(tmp_path)
    ranges = plan_ranges([path, f"file://{tmp_path}/with%20space.jsonl", "with space.jsonl"])
    assert {part.path for part in ranges} == {path}
    assert len(pickle.dumps(ranges[0])) < 500


def test_damaged_first_record_does_not_stop_the_run(tmp_path):
    assert payloads(write(tmp_path, b"\xff\xfe damaged\n{}\n")) == [b"\xff\xfe damaged", b"{}"]


# --- lines


def test_exact_bytes_and_positions(tmp_path):
    data = b'\xef\xbb\xbf{"a":1}\n\n  \t\r\n{"b":2} \r\n\xff\xfe not utf-8\n{"last":true}'
    records = read_all(plan_ranges([write(tmp_path, data)]))
    assert [record.payload for record in records] == [b'{"a":1}', b'{"b":2} ', b"\xff\xfe not utf-8", b'{"last":true}']
    for record in records:
        offset = int(record.position.removeprefix("byte "))
        assert data[offset:].startswith(record.payload)
        assert record.body == record.payload
        assert record.error is None


def test_whitespace_only_file_has_no_records(tmp_path):
    assert payloads(write(tmp_path, b"\n  \n")) == []
    assert payloads(write(tmp_path, b"\xef\xbb\xbf")) == []


line_strategy = st.one_of(
    st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")),
    st.sampled_from([b"", b" ", b"\t\r", b"{}", b"x" * 40, b"\xef\xbb\xbf", b"\xef\xbb\xbf{}"]),
)


@same_folder
@given(
    lines=st.lists(line_strategy, min_size=1, max_size=12),
    ending=st.sampled_from([b"\n", b"\r\n"]),
    last_newline=st.booleans(),
    bom=st.booleans(),
    target=st.integers(1, 60),
    block=st.integers(1, 50),
    batch=st.integers(1, 5),
)
def test_any_split_reads_the_same_records(tmp_path, lines, ending, last_newline, bom, target, block, batch):
    data = b"\xef\xbb\xbf" * bom + ending.join(lines) + ending * last_newline
    # What looks like another kind of file is refused, see test_bad_inputs_are_refused.
    other = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"PK", b"PAR1", b"\xff\xfe", b"\xfe\xff", b"[", b"{\n", b"{\r")
    assume(data and not data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(other))
    path = write(tmp_path, data)
    whole = read_all(plan_ranges([path], FileFormat.JSONL))
    split = read_all(plan_ranges([path], FileFormat.JSONL, target), batch_records=batch, block_bytes=block)
    assert split == whole
    text = data.removeprefix(b"\xef\xbb\xbf")
    expected = [line.removesuffix(b"\r") for line in text.split(b"\n")]
    assert [record.payload for record in whole] == [line for line in expected if line.strip(b" \t\r\n\x0b\x0c")]


def test_batches_are_bounded_by_records_and_bytes(tmp_path):
    lines = [b"%06d" % i * 20 for i in range(2_000)]
    path = write(tmp_path, b"\n".join(lines) + b"\n")
    batches = list(read_range(plan_ranges([path])[0], 300, batch_bytes=12_000, block_bytes=5_000))
    assert [record.payload for batch in batches for record in batch] == lines
    assert all(sum(len(record.payload) for record in batch) <= 12_000 for batch in batches)
    assert max(len(batch) for batch in batches) > 50
    assert max(len(batch) for batch in read_range(plan_ranges([path])[0], 300)) == 300


def test_long_line_is_a_record_with_an_error(tmp_path):
    limit = text_lines.MAX_RECORD_BYTES
    lines = [b"{}", b"x" * limit, b"y" * (limit + 1), b"{}"]
    records = read_all(plan_ranges([write(tmp_path, b"\r\n".join(lines) + b"\r\n")]))
    assert [record.payload for record in records] == lines
    assert [record.error for record in records] == [None, None, "record is longer than 1 MiB", None]
    assert records[2].body is None


def test_huge_line_is_refused_without_holding_it(tmp_path):
    path = tmp_path / "zeros.jsonl"
    with path.open("wb") as file:
        file.write(b"{}\n")
        file.truncate(200 * 1024 * 1024)  # sparse: takes no disk
    ranges = plan_ranges([str(path)])
    tracemalloc.start()
    try:
        for part in (ranges[0], ranges[1]):
            with pytest.raises(UsageError, match="not a text file"):
                read_all([part])
        assert tracemalloc.get_traced_memory()[1] < 65 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_long_line_is_held_once(tmp_path):
    size = 40 * 1024 * 1024
    path = write(tmp_path, b"a" * size + b"\n{}\n")
    ranges = plan_ranges([path])
    tracemalloc.start()
    try:
        sizes = [len(record.payload) for part in ranges for batch in read_range(part) for record in batch]
        assert sizes == [size, 2]
        assert tracemalloc.get_traced_memory()[1] < size + 2 * 1024 * 1024
    finally:
        tracemalloc.stop()


# --- files that change under the reader


def append(path: str, data: bytes) -> None:
    with Path(path).open("ab") as file:
        file.write(data)


def test_growth_is_not_read(tmp_path):
    path = write(tmp_path, b'{"a":1}\n{"b":2}\n')
    ranges = plan_ranges([path], target_bytes=5)
    append(path, b'{"c":3}\n')
    assert [r.payload for r in read_all(ranges)] == [b'{"a":1}', b'{"b":2}']


@pytest.mark.parametrize("target", [1, 5, 100])
def test_last_line_that_grew_is_read_to_its_newline(tmp_path, target):
    path = write(tmp_path, b'{"a":1}\n{"b":')
    ranges = plan_ranges([path], target_bytes=target)
    append(path, b'2}\n{"c":3}\n')
    assert [r.payload for r in read_all(ranges)] == [b'{"a":1}', b'{"b":2}']


def test_vanished_file(tmp_path):
    path = write(tmp_path, b"{}\n")
    ranges = plan_ranges([path])
    Path(path).unlink()
    for use in (lambda: read_all(ranges), lambda: count_records(ranges)):
        with pytest.raises(BackendUnavailableError, match=r"input\.jsonl"):
            use()


def test_shrunk_before_opening(tmp_path):
    path = write(tmp_path, b'{"a":1}\n{"b":2}\n')
    ranges = plan_ranges([path])
    os.truncate(path, 8)
    with pytest.raises(BackendUnavailableError, match="shrank"):
        read_all(ranges)


@pytest.mark.parametrize("cut", [10, 1_000])
def test_shrunk_while_read(tmp_path, cut):
    path = write(tmp_path, b'{"a":1}\n' * 1_000)
    batches = read_range(plan_ranges([path])[0], 2, block_bytes=16)
    next(batches)
    os.truncate(path, cut)
    with pytest.raises(BackendUnavailableError, match="shrank"):
        list(batches)


def test_replaced_file(tmp_path):
    path = write(tmp_path, b'{"a":1}\n')
    ranges = plan_ranges([path])
    write(tmp_path, b'{"another":"file"}\n')
    with pytest.raises(BackendUnavailableError, match="replaced"):
        read_all(ranges)


def test_file_is_closed_when_reading_stops_early(tmp_path):
    path = write(tmp_path, b"{}\n" * 5_000)
    before = len(list(Path("/proc/self/fd").iterdir()))
    batches = read_range(plan_ranges([path])[0], 10)
    next(batches)
    batches.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- counting


def test_counts(tmp_path):
    path = write(tmp_path, b"{}\n" * 1_000 + b"{}")
    assert count_records(plan_ranges([path])) == 1_001
    assert count_records(plan_ranges([path], target_bytes=100)) == 1_001
    csv_path = write(tmp_path, CSV_HEADER + b"\n" + b"1,login,2025-01-01,u\n" * 10, "a.csv")
    assert count_records(plan_ranges([path, csv_path])) == 1_011
    assert count_records([]) == 0


def test_access_log_records(tmp_path):
    path = write(tmp_path, LOG_LINE + b"\r\nnot a log line\n", "access.log")
    good, bad = read_all(plan_ranges([path]))
    assert good.payload == LOG_LINE
    assert good.body is not None
    assert bad.body is None
    assert bad.payload == b"not a log line"
    assert "Log Format" in (bad.error or "")
