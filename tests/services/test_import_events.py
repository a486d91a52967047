"""From an object in S3 (versitygw) through its event in SQS (ElasticMQ) to the active version, by the commands."""

import json
import signal
from pathlib import Path

import boto3
import pytest

from .conftest import SQS

S3 = "http://127.0.0.1:17070"
GOLDEN = Path(__file__).parents[1] / "golden" / "s3-events"


@pytest.fixture
def bucket(server, unique):
    server("versitygw")
    s3 = boto3.client(
        "s3", endpoint_url=S3, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    name = unique("drops").replace("_", "-").lower()[:60]
    s3.create_bucket(Bucket=name)
    yield lambda key, content: s3.put_object(Bucket=name, Key=key, Body=content) and name
    for found in s3.list_objects_v2(Bucket=name).get("Contents", []):
        s3.delete_object(Bucket=name, Key=found["Key"])
    s3.delete_bucket(Bucket=name)


@pytest.fixture
def queue(server, unique):
    server("elasticmq")
    sqs = boto3.client("sqs", endpoint_url=SQS, region_name="us-east-1")
    name = unique("drops")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    yield name, lambda body: sqs.send_message(QueueUrl=url, MessageBody=body)
    sqs.delete_queue(QueueUrl=url)


ENVIRONMENT = {
    "FAN_IDENTITY_S3_OPTIONS": f"region=us-east-1&endpoint={S3}",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def event(bucket, key, name="eventbridge"):
    text = json.loads((GOLDEN / f"{name}.json").read_text())
    text["detail"] |= {"bucket": {"name": bucket}, "object": {"key": key, "size": 50}}
    return json.dumps(text)


def versions(cli, store, kind):
    found = cli("imports", "list", kind, *store.flag, "--json")
    return [json.loads(line) for line in found.out.splitlines()]


def active(cli, store, kind):
    return [(record["state"], record["comparison"]["fans"]) for record in versions(cli, store, kind)]


@pytest.fixture
def scored(store, sale, tmp_path):
    """A store with scored fans, and their ids."""
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(sale(20, 5, 3)))
    store.score(tmp_path / "a.jsonl")
    return sorted({item["globalUserId"] for item in store.score_items()})


def rows(fans, value):
    return ("globalUserId," + value[0] + "\n" + "".join(f"{fan},{value[1].format(fan)}\n" for fan in fans)).encode()


def test_an_event_starts_the_import_of_its_file(cli, store, scored, bucket, tmp_path):
    name = bucket("clusters/a b+c.csv", rows(scored, ("clusterId", "c-{}")))
    (tmp_path / "event.json").write_text(event(name, "clusters/a b+c.csv"))
    done = cli("imports", "on-event", tmp_path / "event.json", *store.flag, "--json", env=ENVIRONMENT)
    assert done.code == 0, done
    assert active(cli, store, "cluster") == [("active", len(scored))]

    again = cli("imports", "on-event", tmp_path / "event.json", *store.flag, env=ENVIRONMENT)
    assert again.code == 2
    assert "imported before" in again.err
    (tmp_path / "none.json").write_text("{}")
    assert cli("imports", "on-event", tmp_path / "none.json", *store.flag).code == 2
    test = cli("imports", "on-event", GOLDEN / "test-event.json", *store.flag)
    assert (test.code, "nothing to import" in test.err) == (0, True)


def test_a_watched_queue_is_worked_off(cli, store, scored, bucket, queue, until):
    sqs, send = queue
    name = bucket("clusters/1.csv", rows(scored, ("clusterId", "c-{}")))
    bucket("elsewhere/2/part-0.csv", rows(scored[:5], ("bonScore", "0.5")))
    bucket("elsewhere/2/part-1.csv", rows(scored[5:], ("bonScore", "0.25")))
    bucket("elsewhere/2/_SUCCESS", b"")
    bucket("clusters/wrong.csv", rows(scored, ("bonScore", "0.5")))
    keys = ("clusters/1.csv", "clusters/wrong.csv", "clusters/1.csv", "elsewhere/2/_SUCCESS")
    watching = cli.start(
        "imports", "watch", "--queue", f"sqs://{sqs}?region=us-east-1&endpoint={SQS}&wait=1", *store.flag, "--json",
        env=ENVIRONMENT,
    )  # fmt: skip
    for key in keys:
        send(event(name, key))
    send("no event at all")
    watching.until(lambda: active(cli, store, "bot-or-not") == [("active", len(scored))], "the folder is imported")
    letters = "SELECT reason FROM dead_letters WHERE worker = 'startImport' ORDER BY reason"
    watching.until(lambda: len(store.query(letters)) == 2, "two messages are refused")
    watching.signal(signal.SIGTERM)
    ended = watching.wait()
    assert ended.code == 1, ended
    counts = json.loads(ended.out)
    assert (counts["imports"], counts["dead_lettered.import_refused"], counts["dead_lettered.malformed"]) == (2, 1, 1)
    assert store.query(letters) == [("import_refused",), ("malformed",)]
    assert active(cli, store, "cluster") == [("active", len(scored))]
    url = boto3.client("sqs", endpoint_url=SQS, region_name="us-east-1")
    left = url.get_queue_attributes(QueueUrl=url.get_queue_url(QueueName=sqs)["QueueUrl"], AttributeNames=["All"])
    assert left["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "0"
