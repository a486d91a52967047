"""Files of links: every format and packing says the same, and what is none is refused first."""

import csv
import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from fan_identity.domain.linking import LinkKind
from fan_identity.io.errors import UsageError
from fan_identity.io.link_files import about_rows, plan_links, read_links

PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


@pytest.mark.parametrize(
    "ending", ["csv", "csv.gz", "csv.zst", "parquet", "jsonl", "jsonl.gz", "jsonl.zst"], ids=lambda ending: ending
)
def test_every_format_says_the_same(tmp_path, ending):
    rows = [("a", "d1", "+491701234567", "8.8.8.8"), ("b", "", "", "9.9.9.9"), ("ü", "d\n2", "+1555", "")]
    names = ("globalUserId", "deviceId", "phone", "context.ipAddress")
    format, dot, packing = ending.partition(".")
    path = tmp_path / f"links.{format}"
    if format == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows])
            file.write("too,few\n\n")
    elif format == "parquet":
        columns = [[value or None for value in column] for column in zip(*rows, strict=True)]
        context = pa.array([{"ipAddress": ip} for ip in columns[3]])
        pq.write_table(pa.table([*map(pa.array, columns[:3]), context], names=[*names[:3], "context"]), path)
    else:
        lines = ({**dict(zip(names[:3], row, strict=False)), "context": {"ipAddress": row[3]}} for row in rows)
        path.write_text("\n".join(json.dumps(line) for line in lines) + '\n["no object"]')
    packed = tmp_path / f"links.{ending}"
    packed.write_bytes(PACK[dot + packing](path.read_bytes()))
    (part,) = plan_links([str(packed)])
    (links,) = read_links(part)
    assert links.fans == ["a", "b", "ü"]
    found = {kind: [value or None for value in values] for kind, values in links.values.items()}
    assert found[LinkKind.DEVICE] == ["d1", None, "d\n2"]
    assert found[LinkKind.PHONE] == ["+491701234567", None, "+1555"]
    assert found[LinkKind.IP_BLOCK] == ["8.8.8.8", "9.9.9.9", None]
    assert links.rejected == ({} if format == "parquet" else {"malformed": 1})


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_large_files_are_read_whole_and_estimated(tmp_path, format, packing):
    """More than a block of unpacked bytes, in two members one behind the other, as ``cat`` puts them."""
    fans = [f"fan-{number:07}" for number in range(120_000)]
    if format == "csv":
        lines = [b"\xef\xbb\xbfglobalUserId,deviceId\r\n", *(f"{fan},d-{fan}\r\n".encode() for fan in fans)]
    else:
        lines = [json.dumps({"globalUserId": fan, "deviceId": f"d-{fan}"}).encode() + b"\n" for fan in fans]
    path = tmp_path / f"links.{format}{packing}"
    half = len(lines) // 2
    path.write_bytes(b"".join(PACK[packing](b"".join(part)) for part in (lines[:half], lines[half:])))
    parts = plan_links([str(path)])
    found = [links for part in parts for links in read_links(part)]
    assert [fan for links in found for fan in links.fans] == fans
    assert [device for links in found for device in links.values[LinkKind.DEVICE]] == [f"d-{fan}" for fan in fans]
    assert sum((links.rejected for links in found), Counter()) == {}
    assert max(len(links.fans) for links in found) == 50_000, "memory is bounded by batches"
    assert 50_000 <= about_rows(parts) <= 240_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "user,deviceId\n1,2\n", "has no column globalUserId"),
        ("a.csv.gz", gzip.compress(b"user,deviceId\n1,2\n"), "has no column globalUserId"),
        ("a.csv", "globalUserId,name\n1,2\n", "has none of the columns deviceId, paymentId"),
        ("a.parquet", "PAR1 and then nothing", "is no readable Parquet file"),
        ("a.parquet.zst", zstandard.compress(b"PAR1"), "is Parquet packed once more with zstd"),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl.gz", gzip.compress(b""), "is empty inside"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(b"{}\n")), "is compressed twice"),
        ("a.jsonl", "[\n{}\n]", "is a JSON array"),
        ("a.jsonl.gz", b"\x1f\x8b and then nothing", "is damaged"),
    ],
)
def test_files_that_cannot_be_links_are_refused_before_anything_is_written(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UsageError, match=said):
        plan_links([str(tmp_path / name)])


def test_a_compressed_file_that_is_cut_off_is_an_error(tmp_path):
    """What there is of it is no result: its other half would look as if those fans shared nothing."""
    path = tmp_path / "links.jsonl.gz"
    rows = b"".join(b'{"globalUserId": "%d", "deviceId": "%x"}\n' % (one, hash(str(one))) for one in range(200_000))
    whole = gzip.compress(rows)
    path.write_bytes(whole[: len(whole) // 2])
    (part,) = plan_links([str(path)])
    with pytest.raises(UsageError, match=r"links\.jsonl\.gz: is cut off"):
        list(read_links(part))
