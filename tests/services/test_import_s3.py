"""Import files in a real S3 server: planned, read, and every mistake said in one line."""

import gzip
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fan_identity.domain.imports import ImportKind
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.import_files import plan_import, read_import

BON = ImportKind.BOT_OR_NOT
S3 = "http://127.0.0.1:17070"
CSV = b"globalUserId,bonScore\nfan-1,0.25\nfan-2,1\n"
OPTIONS = f"?endpoint={S3}&region=us-east-1"


class Bucket:
    """A bucket of a test's own."""

    def __init__(self, name):
        self.name = name
        self.client = boto3.client("s3", endpoint_url=S3)
        self.client.create_bucket(Bucket=name)

    def put(self, key, body):
        self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return self.address(key)

    def address(self, key, options=OPTIONS):
        return f"s3://{self.name}/{key}{options}"


@pytest.fixture
def bucket(server, unique):
    server("versitygw")
    return Bucket(unique("imports"))


def parquet(count, **settings):
    sink = pa.BufferOutputStream()
    table = pa.table({"globalUserId": pa.array(range(count)), "bonScore": pa.repeat(0.5, count)})
    pq.write_table(table, sink, **settings)
    return sink.getvalue().to_pybytes()


def users(plan):
    return [user for part in plan.ranges for rows in read_import(part) for user in rows.table["user"].to_pylist()]


def refusal(address, error=UsageError):
    with pytest.raises(error) as caught:
        plan_import([address], BON)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_object_of_each_format(bucket):
    jsonl = b'{"globalUserId":"fan-1","bonScore":0.25}\n{"globalUserId":"fan-2","bonScore":1}\n'
    for key, body in {
        "a.csv": CSV,
        "a b/ü+x.csv.gz": gzip.compress(CSV),
        "a.jsonl": jsonl,
        "a.jsonl.zst": pa.compress(jsonl, "zstd", asbytes=True),
    }.items():
        plan = plan_import([bucket.put(key, body)], BON)
        assert (plan.files, plan.rows) == ((f"s3://{bucket.name}/{key}",), 2)
        assert users(plan) == ["fan-1", "fan-2"]


def test_parquet_is_split_and_each_range_read_on_its_own(bucket):
    plan = plan_import([bucket.put("a.parquet", parquet(1_200_000, row_group_size=300_000))], BON)
    assert [part.rows for part in plan.ranges] == [300_000] * 4
    assert users(plan) == [str(number) for number in range(1_200_000)]
    last = next(read_import(plan.ranges[-1]))
    assert last.table["user"][0].as_py() == "900000"


def test_text_is_split_and_each_range_read_on_its_own(bucket):
    lines = [f"fan-{number},0.5\n" for number in range(20_000)]
    address = bucket.put("a.csv", ("globalUserId,bonScore\n" + "".join(lines)).encode())
    plan = plan_import([address], BON, target_bytes=50_000)
    assert len(plan.ranges) > 2
    assert users(plan) == [f"fan-{number}" for number in range(20_000)]


def test_the_digest_is_that_of_the_same_file_on_disk(bucket, tmp_path):
    (tmp_path / "b.csv").write_bytes(CSV)
    assert plan_import([bucket.put("a.csv", CSV)], BON).digest == plan_import([f"{tmp_path}/b.csv"], BON).digest


def test_a_folder_in_the_order_of_its_keys(bucket):
    for key in ("day/part-2.csv", "day/part-1.csv", "day/deeper/part-3.csv", "other/part-4.csv"):
        bucket.put(key, CSV.replace(b"fan", key.encode()))
    bucket.put("day/_SUCCESS", b"")
    bucket.put("day/_temporary/part-9.csv", b"nonsense")
    bucket.put("day/notes.txt", b"nonsense")
    plan = plan_import([bucket.address("day/")], BON)
    assert [name.rpartition("day/")[2] for name in plan.files] == ["deeper/part-3.csv", "part-1.csv", "part-2.csv"]
    assert plan.rows == len(users(plan)) == 6
    assert len(plan_import([bucket.address("")], BON).files) == 4, "a whole bucket"


def test_more_objects_than_one_listing_holds(bucket):
    """A listing has a thousand; what is to be read comes last."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bucket.put(f"many/{number:04d}.txt", b"nonsense"), range(1_001)))
    bucket.put("many/last.csv", CSV)
    assert plan_import([bucket.address("many/")], BON).files == (f"s3://{bucket.name}/many/last.csv",)


def test_mistakes(bucket, unique):
    address = bucket.put("day/a.csv", CSV)
    name = f"s3://{bucket.name}"
    assert refusal(bucket.address("b.csv")) == f"{name}/b.csv: no such bucket or object; check bucket, key and region"
    assert "is a folder; write" in refusal(bucket.address("day"))
    assert "no such" in refusal(bucket.address("nothing/"))
    missing = unique("nowhere")
    assert "check bucket, key and region" in refusal(f"s3://{missing}/a.csv{OPTIONS}")
    assert "no such bucket" in refusal(f"s3://{missing}/day/{OPTIONS}")
    assert "the credentials in use are refused" in refusal(address + "&anonymous=true")
    assert "is empty" in refusal(bucket.put("empty.csv", b""))
    assert "misses the column bonScore" in refusal(bucket.put("wrong.csv", b"globalUserId\nx\n"))
    assert "import it with startClusterImport" in refusal(bucket.put("c.csv", b"globalUserId,clusterId\nx,c\n"))
    assert "is half a Parquet file" in refusal(bucket.put("half.parquet", parquet(1_000)[:5_000]))
    assert "ends too early" in refusal(bucket.put("half.csv.gz", gzip.compress(CSV * 1_000)[:-9]))
    assert "has no option 'regoin'" in refusal(bucket.address("a.csv", "?regoin=eu-west-1"))
    assert "option endpoint is written http://host:port" in refusal(bucket.address("a.csv", "?endpoint=localhost:9000"))
    for nothing in (f"s3://{bucket.name}{OPTIONS}", "s3://", "s3:///a.csv"):
        assert "write s3://bucket/key, or s3://bucket/folder/ for all files in it" in refusal(nothing)


def test_wrong_secret(bucket):
    """Credentials are read when a process first opens the store, so another one asks."""
    address = bucket.put("a.csv", CSV)
    code = (
        "import sys\nfrom fan_identity.domain.imports import ImportKind\n"
        "from fan_identity.io.import_files import plan_import\n"
        "try:\n    plan_import([sys.argv[1]], ImportKind.BOT_OR_NOT)\nexcept Exception as error:\n"
        "    print(type(error).__name__, error)"
    )
    environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    done = subprocess.run(
        [sys.executable, "-c", code, address], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"UsageError s3://{bucket.name}/a.csv: the credentials in use are refused; check them and the bucket's policy\n"
    )


def test_out_of_reach(bucket):
    endpoint = quote("http://127.0.0.1:9", safe="")
    assert "is out of reach" in refusal(bucket.address("a.csv", f"?endpoint={endpoint}"), BackendUnavailableError)


def test_replaced_since_the_plan_though_as_long_and_as_old(bucket):
    """Times have whole seconds there: the ETag tells."""
    part = plan_import([bucket.put("a.csv", CSV)], BON).ranges[0]
    bucket.put("a.csv", CSV.replace(b"0.25", b"0.26"))
    with pytest.raises(BackendUnavailableError, match="was replaced since the import began"):
        next(read_import(part))
    bucket.client.delete_object(Bucket=bucket.name, Key="a.csv")
    with pytest.raises(BackendUnavailableError, match="is gone since the import began"):
        next(read_import(part))
