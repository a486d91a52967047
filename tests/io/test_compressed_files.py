"""Compressed activity files: what is read is what the plain file holds, and damage is said, never passed over."""

import gzip
import os
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fan_identity.io.errors import UsageError
from fan_identity.io.files import FileFormat, LineTail, count_records, detect_format, plan_ranges, read_range

PACK = {".gz": gzip.compress, ".zst": zstandard.compress}
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
packed_as = pytest.mark.parametrize("suffix", PACK)


def pack(folder: Path, name: str, data: bytes, suffix: str) -> str:
    path = folder / f"{name}{suffix}"
    path.write_bytes(PACK[suffix](data))
    return str(path)


def records(path: str, format: FileFormat | None = None, **options):
    return [one for part in plan_ranges([path], format) for batch in read_range(part, **options) for one in batch]


@packed_as
@same_folder
@given(
    data=st.lists(st.sampled_from([b'{"a":1}', b"", b"  ", b"x" * 50, b"\r", b"\xff"]), min_size=1).map(b"\n".join),
    mark=st.booleans(),
    block=st.sampled_from([3, 7, 64, 1_000]),
)
def test_lines_are_those_of_the_plain_file(tmp_path, suffix, data, mark, block):
    contents = (b"\xef\xbb\xbf" if mark else b"") + data + b"\n"
    plain = tmp_path / "a.jsonl"
    plain.write_bytes(contents)
    expected = records(str(plain))
    assert records(pack(tmp_path, "a.jsonl", contents, suffix), block_bytes=block) == expected


@packed_as
@same_folder
@given(rows=st.lists(st.tuples(st.text('ab,"\n\r é', max_size=8), st.text("xy", max_size=3)), max_size=20))
def test_csv_rows_are_those_of_the_plain_file(tmp_path, suffix, rows):
    lines = [f'"{name.replace(chr(34), chr(34) * 2)}",login,1,{user}' for name, user in rows]
    contents = "\r\n".join(["activityId,activityType,occurredAt,globalUserId", *lines]).encode()
    plain = tmp_path / "a.csv"
    plain.write_bytes(contents)
    expected = records(str(plain))
    assert len(expected) == len(rows)
    assert records(pack(tmp_path, "a.csv", contents, suffix), block_bytes=5) == expected


@packed_as
def test_files_put_together_are_one(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(PACK[suffix](b'{"a":1}\n{"a"') + PACK[suffix](b":2}\n"))
    assert [one.body for one in records(str(path))] == [b'{"a":1}', b'{"a":2}']


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.jsonl", b"{}\n", FileFormat.JSONL),
        ("a.CSV", b"activityId,activityType,occurredAt,globalUserId\n", FileFormat.CSV),
        ("access.log.2", b'10.0.0.1 - - [17/May/2025:10:05:03 +0000] "GET / HTTP/1.1" 200 5\n', FileFormat.ACCESS_LOG),
        ("unnamed", b'{"activityId":"1"}\n', FileFormat.JSONL),
    ],
)
@packed_as
def test_the_format_is_told_by_the_name_inside_or_the_contents(tmp_path, name, data, expected, suffix):
    assert detect_format(pack(tmp_path, name, data, suffix)) is expected


@packed_as
def test_compression_is_told_by_the_bytes_whatever_the_name(tmp_path, suffix):
    path = tmp_path / "a.jsonl"
    path.write_bytes(PACK[suffix](b'{"a":1}\n'))
    assert [one.body for one in records(str(path))] == [b'{"a":1}']


@packed_as
def test_a_file_cut_off_or_damaged_is_refused_in_one_line(tmp_path, suffix):
    contents = b"".join(b'{"n":"%s"}\n' % os.urandom(20).hex().encode() for _ in range(20_000))
    whole = PACK[suffix](contents)
    for name, data, why in (
        ("cut", whole[: len(whole) // 2], "cut off"),
        ("one byte less", whole[:-1], "cut off"),
        ("followed by other bytes", whole + b"not packed", "damaged"),
    ):
        path = tmp_path / f"{name}.jsonl{suffix}"
        path.write_bytes(data)
        with pytest.raises(UsageError, match=why) as caught:
            records(str(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "empty inside"),
        ("a.jsonl", gzip.compress(b"{}\n"), "compressed twice"),
        ("a.jsonl", b'[{"a":1}]', "jq"),
        ("a.csv", b"activityId,when\n", "found: activityId, when"),
        ("a.parquet", b"PAR1", "Parquet packed once more"),
    ],
)
@packed_as
def test_what_is_wrong_inside_is_said_before_anything_is_read(tmp_path, name, data, message, suffix):
    with pytest.raises(UsageError, match=message):
        plan_ranges([pack(tmp_path, name, data, suffix)])


@packed_as
def test_a_compressed_file_cannot_be_followed(tmp_path, suffix):
    with pytest.raises(UsageError, match="cannot be followed"):
        LineTail(pack(tmp_path, "a.jsonl", b"{}\n", suffix), FileFormat.JSONL)


@packed_as
def test_memory_stays_bounded_whatever_a_file_unpacks_to(tmp_path, suffix):
    path = pack(tmp_path, "a.jsonl", b'{"activityId":"1"}\n' * 1_000_000, suffix)
    assert Path(path).stat().st_size < 100_000
    (part,) = plan_ranges([path])
    tracemalloc.start()
    try:
        assert sum(len(batch) for batch in read_range(part)) == 1_000_000
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


@packed_as
def test_records_are_counted_from_a_file_s_beginning(tmp_path, suffix, monkeypatch):
    contents = b"".join(b'{"n":"%s"}\n' % os.urandom(20).hex().encode() for _ in range(200_000))
    ranges = plan_ranges([pack(tmp_path, "a.jsonl", contents, suffix)])
    assert count_records(ranges) == 200_000
    monkeypatch.setattr("fan_identity.io.compressed_files._COUNTED_BYTES", 4 * 1024 * 1024)
    assert 150_000 < count_records(ranges) < 230_000, "a progress bar needs no more"


@packed_as
def test_an_endless_line_is_refused(tmp_path, suffix):
    path = pack(tmp_path, "a.jsonl", b"x" * (65 * 1024 * 1024), suffix)
    with pytest.raises(UsageError, match="64 MiB"):
        records(path)
