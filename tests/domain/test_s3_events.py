"""S3's events: captured ones with what they tell, in tests/golden/s3-events, and what is none."""

import contextlib
import json
from pathlib import Path
from urllib.parse import quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.activity import MalformedRecordError
from fan_identity.domain.s3_events import S3Object, objects_created

GOLDEN = Path(__file__).parents[1] / "golden" / "s3-events"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json") if not path.stem.endswith(".expected"))
BARE = json.loads((GOLDEN / "bare.json").read_text())
EVENT_BRIDGE = json.loads((GOLDEN / "eventbridge.json").read_text())


def test_there_are_captured_events():
    assert {"bare", "sns-in-sqs", "eventbridge", "list", "test-event"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_captured_events(name):
    expected = json.loads((GOLDEN / f"{name}.expected.json").read_text())
    found = objects_created((GOLDEN / f"{name}.json").read_bytes())
    assert found == [S3Object(*each) for each in expected]


@given(
    key=st.text(min_size=1).filter(lambda text: not text.endswith("/")),
    bucket=st.from_regex(r"[a-z0-9.-]{3,63}", fullmatch=True),
)
def test_any_key_arrives_as_it_is(key, bucket):
    [record, _] = BARE["Records"]
    told = {**record["s3"], "bucket": {"name": bucket}, "object": {"key": quote_plus(key), "size": 1}}
    bare = json.dumps({"Records": [{**record, "s3": told}]}).encode()
    through = {**EVENT_BRIDGE, "detail": {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}}}
    for body in (bare, json.dumps(through).encode()):
        [found] = objects_created(body)
        assert (found.bucket, found.key) == (bucket, key)
        assert found.address == f"s3://{bucket}/{key}"


def changed(**changes):
    [record, _] = BARE["Records"]
    return {"Records": [{**record, **changes}]}


S3 = BARE["Records"][0]["s3"]
WRONG = {
    "no json": b"{",
    "not utf-8": b'{"Records": "\xff"}',
    "empty": b"",
    "deep": b"[" * 100_000,
    "a number": 3,
    "an object": {},
    "an activity": {"activityId": "a", "globalUserId": "u", "activityType": "login", "occurredAt": 1},
    "no records": {"Records": {"a": 1}},
    "records of texts": {"Records": ["a"]},
    "another source": changed(eventSource="aws:kinesis"),
    "no source": {"Records": [{"s3": S3}]},
    "no s3": changed(s3=None),
    "no bucket": changed(s3={"object": S3["object"]}),
    "bucket without a name": changed(s3={**S3, "bucket": {"name": ""}}),
    "key is a number": changed(s3={**S3, "object": {"key": 3}}),
    "key is no utf-8": changed(s3={**S3, "object": {"key": "%ff"}}),
    "key is empty": changed(s3={**S3, "object": {"key": ""}}),
    "no time": changed(eventTime=None),
    "time is none": changed(eventTime="yesterday"),
    "name is a number": changed(eventName=1),
    "eventbridge of something else": {**EVENT_BRIDGE, "detail-type": "Scheduled Event", "detail": {}},
    "eventbridge without a key": {**EVENT_BRIDGE, "detail": {"bucket": {"name": "b"}, "object": {}}},
    "eventbridge without a time": {**EVENT_BRIDGE, "time": "soon"},
    "list with something else": [BARE, {"a": 1}],
}


@pytest.mark.parametrize("name", WRONG)
def test_other_things_are_refused(name):
    body = WRONG[name] if isinstance(WRONG[name], bytes) else json.dumps(WRONG[name]).encode()
    with pytest.raises(MalformedRecordError) as refused:
        objects_created(body)
    assert "\n" not in str(refused.value)
    assert "partner-drops" not in str(refused.value), "an error tells no values"


def test_envelopes_without_an_end_are_refused():
    body = BARE
    for _ in range(6):
        body = {"Records": [{"eventSource": "aws:sqs", "body": json.dumps(body)}]}
    with pytest.raises(MalformedRecordError, match="too many envelopes"):
        objects_created(json.dumps(body).encode())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["Records", "eventSource", "s3", "body", "detail", "Event", "object"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_anything_is_an_answer_or_malformed(value):
    with contextlib.suppress(MalformedRecordError):
        assert objects_created(msgspec.json.encode(value)) == []
