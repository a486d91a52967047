"""The rule of deploy/eventbridge on a real bus (ministack): S3's events reach the queue, and tell what to import."""

import json
from pathlib import Path

import boto3
import pytest

from fan_identity.domain.s3_events import objects_created

ENDPOINT = "http://127.0.0.1:14566"
ROOT = Path(__file__).parents[2]
TEMPLATE = json.loads((ROOT / "deploy" / "eventbridge" / "imports.template.json").read_text())
CAPTURED = json.loads((ROOT / "tests" / "golden" / "s3-events" / "eventbridge.json").read_text())


@pytest.fixture
def routed(server, unique):
    """A bus with the template's rule for a bucket, and the queue behind it."""
    server("ministack")
    made = {"endpoint_url": ENDPOINT, "region_name": "us-east-1"}
    events, sqs = boto3.client("events", **made), boto3.client("sqs", **made)
    name = unique("rule")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.create_event_bus(Name=name)
    pattern = json.dumps(TEMPLATE["Resources"]["ObjectCreated"]["Properties"]["EventPattern"])
    # Nobody but AWS may put events of a source aws.…; that the pattern takes it is in tests/deploy.
    pattern = pattern.replace('{"Ref": "BucketName"}', '"drops"').replace('"aws.s3"', '"test.s3"')
    events.put_rule(Name=name, EventBusName=name, EventPattern=pattern)
    events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "queue", "Arn": arn}])

    def put(entries):
        answer = events.put_events(Entries=[{**entry, "EventBusName": name} for entry in entries])
        assert answer["FailedEntryCount"] == 0, answer

    return put, url, sqs


def entry(bucket, key, kind="Object Created"):
    detail = {**CAPTURED["detail"], "bucket": {"name": bucket}, "object": {"key": key, "size": 3}}
    return {"Source": "test.s3", "DetailType": kind, "Detail": json.dumps(detail)}


def test_new_objects_of_imports_reach_the_queue_and_others_do_not(routed, until):
    put, url, sqs = routed
    wanted = ["clusters/2026-11-26/a b+c.parquet", "bot-or-not/x.csv.gz", "clusters/2026-11-26/_SUCCESS"]
    put([
        entry("other", wanted[0]),
        entry("drops", "reports/x"),
        entry("drops", wanted[0], "Object Deleted"),
        *(entry("drops", key) for key in wanted),
    ])  # fmt: skip
    found = []

    def received():
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            found.extend(created.key for created in objects_created(message["Body"].encode()))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(found) >= len(wanted)

    until(received, "the events arrive")
    assert sorted(found) == sorted(wanted)
    left = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    assert left["ApproximateNumberOfMessages"] == "0"
