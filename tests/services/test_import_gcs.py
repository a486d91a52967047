"""Import files in Google Cloud Storage, as its fake serves them: planned, read, and mistakes said in one line."""

import gzip
import http.client
import json
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fan_identity.domain.imports import ImportKind
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.import_files import plan_import, read_import

BON = ImportKind.BOT_OR_NOT
AT = "127.0.0.1:17443"
CSV = b"globalUserId,bonScore\nfan-1,0.25\nfan-2,1\n"
OPTIONS = f"?endpoint=http://{AT}&anonymous=true"


def post(path, body, kind):
    connection = http.client.HTTPConnection(AT, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
    finally:
        connection.close()


@pytest.fixture
def bucket(server, unique):
    server("gcs")
    name = unique("imports")
    post("/storage/v1/b?project=tests", json.dumps({"name": name}).encode(), "application/json")
    return name


def put(bucket, key, body):
    path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}"
    post(path, body, "application/octet-stream")
    return f"gs://{bucket}/{key}{OPTIONS}"


def users(plan):
    return [user for part in plan.ranges for rows in read_import(part) for user in rows.table["user"].to_pylist()]


def test_objects_and_folders(bucket):
    sink = pa.BufferOutputStream()
    table = pa.table({"globalUserId": pa.array(range(1_000)), "bonScore": pa.repeat(0.5, 1_000)})
    pq.write_table(table, sink)
    assert users(plan_import([put(bucket, "a b/ü.csv", CSV)], BON)) == ["fan-1", "fan-2"]
    assert users(plan_import([put(bucket, "day/b.parquet", sink.getvalue().to_pybytes())], BON))[-1] == "999"
    put(bucket, "day/a.csv.gz", gzip.compress(CSV))
    put(bucket, "day/_SUCCESS", b"")
    plan = plan_import([f"gs://{bucket}/day/{OPTIONS}"], BON)
    assert plan.files == (f"gs://{bucket}/day/a.csv.gz", f"gs://{bucket}/day/b.parquet")
    assert len(users(plan)) == 1_002


def test_mistakes(bucket, unique):
    address = put(bucket, "day/a.csv", CSV)
    for wrong in (
        f"gs://{bucket}/b.csv{OPTIONS}",
        f"gs://{bucket}/nothing/{OPTIONS}",
        f"gs://{unique('nowhere')}/a.csv{OPTIONS}",
        f"gs://{unique('nowhere')}/day/{OPTIONS}",
    ):
        with pytest.raises(UsageError, match="no such bucket or object; check bucket"):
            plan_import([wrong], BON)
    with pytest.raises(UsageError, match="is a folder; write"):
        plan_import([f"gs://{bucket}/day{OPTIONS}"], BON)
    with pytest.raises(UsageError, match="has no option 'region'; there are: anonymous, endpoint"):
        plan_import([address + "&region=eu-west-1"], BON)


def test_replaced_since_the_plan(bucket):
    part = plan_import([put(bucket, "a.csv", CSV)], BON).ranges[0]
    put(bucket, "a.csv", CSV.replace(b"0.25", b"0.26"))
    with pytest.raises(BackendUnavailableError, match="was replaced since the import began"):
        next(read_import(part))
