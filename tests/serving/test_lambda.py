"""The Lambda: AWS's events by their recorded shapes, the same effects as the pipelines, answers as AWS expects them."""

import base64
import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.activity import format_time_ms
from fan_identity.domain.aws_events import EventKind, transform_input
from fan_identity.domain.imports import ImportKind, Pointer, fan_item, pointer_item
from fan_identity.domain.keys import user_pk
from fan_identity.io.backends import Backends, open_flags
from fan_identity.io.errors import UsageError
from fan_identity.io.flags import TOKEN_ENV
from fan_identity.io.registry import worker_named
from fan_identity.io.settings import load_settings
from fan_identity.io.telemetry.batch_traces import BatchTrace
from fan_identity.io.telemetry.tracing import NOTHING
from fan_identity.serving import invocation
from fan_identity.serving.lambda_handler import MIDDLEWARE, answer, handler

from ..io.embedded_metrics import checked

NOW = int(time.time() * 1_000) - 60_000


def body(number=1, user="u1", kind="login"):
    return json.dumps(
        {"activityId": f"a{number}", "activityType": kind, "occurredAt": NOW + number, "globalUserId": user}
    ).encode()


def b64(data):
    return base64.b64encode(data).decode()


def kinesis(*data):
    return {
        "Records": [
            {
                "eventSource": "aws:kinesis",
                "eventSourceARN": "arn:aws:kinesis:eu-west-1:1:stream/purchases",
                "kinesis": {"data": one, "sequenceNumber": str(number), "partitionKey": "k"},
            }
            for number, one in enumerate(data)
        ]
    }


def kafka(*values):
    records = [
        {"topic": "activities", "partition": 0, "offset": number, "timestamp": NOW, "value": value}
        for number, value in enumerate(values)
    ]
    return {"eventSource": "aws:kafka", "records": {"activities-0": records}}


def sqs(*bodies, receives=1):
    return {
        "Records": [
            {
                "messageId": f"m{number}",
                "receiptHandle": "r",
                "body": text,
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:1:q.fifo",
                "attributes": {
                    "ApproximateReceiveCount": str(receives),
                    "SentTimestamp": str(NOW + 1_000),
                    "MessageGroupId": group,
                },
            }
            for number, (text, group) in enumerate(bodies)
        ]
    }


def dynamodb(*images, name="INSERT"):
    return {
        "Records": [
            {
                "eventSource": "aws:dynamodb",
                "eventSourceARN": "arn:aws:dynamodb:eu-west-1:1:table/t/stream/s",
                "eventName": name,
                "dynamodb": {"NewImage": image, "SequenceNumber": str(number)},
            }
            for number, image in enumerate(images)
        ]
    }


ARAI_IMAGE = {
    "PK": {"S": "USER#u1"},
    "SK": {"S": "ARAI#2026-11-25T10:00:00.000Z"},
    "type": {"S": "arai"},
    "globalUserId": {"S": "u1"},
    "dateUpdated": {"S": "2026-11-25T10:00:00.000Z"},
    "araiResponse": {"M": {"features": {"M": {"activityCount": {"N": "7"}, "failureShare": {"N": "0.25"}}}}},
}


@pytest.fixture
def settings(tmp_path):
    return load_settings(store=f"sqlite:///{tmp_path}/s.db")


def ask(worker, event, settings):
    return answer(event, None, worker_named(worker), settings)


def test_the_middleware_is_the_references_in_its_order():
    assert [step.__name__ for step in MIDDLEWARE] == [
        "correlation",
        "tracing",
        "transform",
        "set_record_correlations",
        "services",
        "handle",
        "result",
    ]


@pytest.mark.parametrize(
    ("worker", "event"),
    [
        ("enqueueFromStream", kafka(b64(body(1)), b64(body(2)), b64(b"broken"))),
        ("enqueueFromPurchaseStream", kinesis(b64(body(1)), b64(body(2)), b64(b"broken"))),
        ("enqueueFromVfStream", kinesis(b64(body(1)), b64(body(2)), "not base64!")),
        ("enqueueFromSQJourneyStream", kinesis(b64(body(1)), b64(body(2)), b64(b"\xf3\x89\x9a\xc2cut"))),
        ("enqueueFromDemandStream", kinesis(b64(body(1)), b64(body(2)), b64(b"[]"))),
    ],
)
def test_streams_are_enqueued_and_answered_with_counts(settings, worker, event):
    told = ask(worker, event, settings)
    dead = "unreadable" if "VfStream" in worker or "Journey" in worker else "malformed"
    assert told["data"] == {"read": 3, "enqueued": 2, f"dead_lettered.{dead}": 1}
    assert len(told["correlation"]["requestId"]) == 32
    assert Backends.of(settings, worker).open_queue().depth() == 2


@pytest.fixture
def switched_off(settings, monkeypatch):
    """Settings with which every worker is off: no flag server ever answered, and that is the default then."""
    monkeypatch.setenv(TOKEN_ENV, "default:development.s3cret")
    off = settings.model_copy(update={"flags": "unleash+http://127.0.0.1:9/api", "flags_default": False})
    yield off
    open_flags(off.flags, off.flags_default, off.flags_folder).close()


def test_switched_off_a_queue_keeps_its_messages_and_nothing_is_done(settings, switched_off):
    fan = '{"globalUserId":"u1"}'
    told = ask("scoreUsers", sqs((fan, "g"), (fan, "g"), ("{}", "h")), switched_off)
    assert told == {"skipped": True, "batchItemFailures": [{"itemIdentifier": f"m{number}"} for number in range(3)]}
    table = Backends.of(settings).open_table()
    assert table.query(user_pk("u1"), "SCORE#") == []
    assert Backends.of(settings).open_dead_letters().select() == []


@pytest.mark.parametrize("event", [kafka(b64(body(1))), kinesis(b64(body(1)))])
def test_switched_off_a_stream_is_answered_with_skipped_alone(settings, switched_off, event):
    """A failure would hold the shard, or bring the batch again until it is given up."""
    assert ask("enqueueFromStream", event, switched_off) == {"skipped": True}
    assert Backends.of(settings, "enqueueFromStream").open_queue().depth() == 0


def test_messages_are_scored_and_a_batch_answered_by_its_failures(settings):
    ask("enqueueFromStream", kafka(b64(body(1)), b64(body(2, "u2"))), settings)
    queued = Backends.of(settings).open_queue().receive(10)
    told = ask("scoreUsers", sqs(*[(one.body.decode(), one.group_id) for one in queued], ("{}", "g")), settings)
    assert told == {"batchItemFailures": []}, "a bad message is a dead letter, not a failure"
    table = Backends.of(settings).open_table()
    assert [item["activityId"] for item in table.query(user_pk("u1"), "SCORE#")] == ["a1"]
    assert [one.letter.reason for one in Backends.of(settings).open_dead_letters().select()] == ["malformed"]


def test_a_failure_returns_the_rest_of_its_group_and_no_other_group(settings):
    """The model is away: what was asked of it comes back; a bad message is no failure."""
    away = settings.model_copy(update={"model": "http://127.0.0.1:9/score?deadline=1&timeout=1"})
    fan = '{"globalUserId":"%s"}'
    ask("enqueueFromStream", kafka(b64(body(1)), b64(body(2, "u2"))), settings)
    messages = [(fan % "u1", "u1"), (fan % "u2", "u2"), (fan % "u1", "u1"), ("{}", "u3")]
    told = ask("scoreUsers", sqs(*messages), away)
    assert told == {"batchItemFailures": [{"itemIdentifier": f"m{number}"} for number in range(3)]}
    tired = ask("scoreUsers", sqs(*messages[:1], receives=10), away)
    assert tired == {"batchItemFailures": []}
    reasons = {one.letter.reason for one in Backends.of(settings).open_dead_letters().select()}
    assert reasons == {"malformed", "model_unavailable"}


def test_arai_changes_are_selected_and_scored(settings):
    other = {**ARAI_IMAGE, "type": {"S": "score"}}
    told = ask("scoreUsers", dynamodb(ARAI_IMAGE, other), settings)
    assert told["data"] == {"read": 2, "scored": 1, "rejected.other_change": 1}
    removed = ask("scoreUsers", dynamodb(ARAI_IMAGE, name="REMOVE"), settings)
    assert removed["data"] == {"read": 1, "rejected.other_change": 1}
    through = {"eventName": "MODIFY", "eventID": "e", "dynamodb": {"NewImage": ARAI_IMAGE}}
    carried = ask("scoreUsers", kinesis(b64(json.dumps(through).encode())), settings)
    assert carried["data"] == {"read": 1, "scored": 1}
    items = Backends.of(settings).open_table().query(user_pk("u1"), "SCORE#")
    assert [item["activityType"] for item in items] == ["araiChange"], "the same change is the same score"


def test_rescore_requests_and_verifications(settings):
    ask("enqueueFromStream", kafka(b64(body(1))), settings)
    told = ask("processRescoreEvents", sqs(('{"rescoreId":"r","users":["u1"]}', "g")), settings)
    assert told == {"batchItemFailures": []}
    assert len(Backends.of(settings).open_table().query(user_pk("u1"), "SCORE#")) == 1
    event = {
        "version": "0",
        "id": "e",
        "detail-type": "idv",
        "source": "idv",
        "time": format_time_ms(NOW),
        "detail": {"verificationId": "v", "globalUserId": "u1", "status": "passed"},
    }
    direct = ask("handleEvent", event, settings)
    assert direct["data"] == {"received": 1, "stored": 1}
    assert ask("handleEvent", sqs((json.dumps(event), "g")), settings) == {"batchItemFailures": []}
    stored = Backends.of(settings, "handleEvent").open_table().query(user_pk("u1"), "VERIFICATION#")
    assert [item["occurredAt"] for item in stored] == [format_time_ms(NOW)], "the same event is the same item"


def test_events_are_consumed_by_their_type_and_count_in_the_next_score(settings):
    entry = {"globalUserId": "u1", "messageId": "m1", "occurredAt": NOW, "postalCode": "1", "unknown": "x"}
    upsert = {"version": "0", "id": "e", "detail-type": "user.upsert", "source": "fan-identity", "detail": entry}
    other = {**upsert, "detail-type": "user.deleted"}
    failed = {"verificationId": "v", "globalUserId": "u1", "status": "FAILED", "occurredAt": NOW}
    assert ask("handleEvent", upsert, settings)["data"] == {"received": 1, "stored": 1}
    assert ask("handleEvent", upsert, settings)["data"] == {"received": 1, "deduplicated": 1}
    assert ask("handleEvent", other, settings)["data"] == {"received": 1, "dead_lettered.unknown_event": 1}
    table = Backends.of(settings).open_table()
    assert table.get(user_pk("u1"), "PROFILE")["postalCode"] == "1"
    score = sqs((json.dumps({"globalUserId": "u1"}), "g"))
    ask("enqueueFromStream", kafka(b64(body(1))), settings)
    ask("scoreUsers", score, settings)
    before = table.get(user_pk("u1"), "LATEST")
    mixed = sqs((json.dumps(failed), "g"), (json.dumps(upsert), "g"), (json.dumps(other), "g"))
    assert ask("handleEvent", mixed, settings) == {"batchItemFailures": []}
    ask("scoreUsers", score, settings)
    ask("scoreUsers", dynamodb(ARAI_IMAGE), settings)
    ask("processRescoreEvents", sqs(('{"rescoreId":"r","users":["u1"]}', "g")), settings)
    after = table.query(user_pk("u1"), "SCORE#")
    codes = {item["activityType"]: [reason["code"] for reason in item["reasons"]] for item in after}
    assert "IDENTITY_CHECK_FAILED" not in [reason["code"] for reason in before["reasons"]]
    for kind in ("onDemand", "rescore"):
        assert codes[kind][-1] == "IDENTITY_CHECK_FAILED"
    assert codes["araiChange"][-1] != "IDENTITY_CHECK_FAILED", "it is of a time before the check"


def test_a_result_the_identity_service_cannot_be_told_of_goes_back_and_an_entry_does_not(settings):
    away = settings.model_copy(update={"identity": "http://127.0.0.1:9/identity?deadline=1&timeout=1"})
    result = {"verificationId": "v", "globalUserId": "u1", "status": "PASSED", "occurredAt": NOW}
    entry = {"globalUserId": "u1", "messageId": "m1", "occurredAt": NOW}
    upsert = {"version": "0", "id": "e", "detail-type": "user.upsert", "source": "fan-identity", "detail": entry}
    told = ask("handleEvent", sqs((json.dumps(result), "g"), (json.dumps(upsert), "g")), away)
    assert told == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    tables = (Backends.of(settings, "handleEvent").open_table(), Backends.of(settings).open_table())
    assert [table.query(user_pk("u1")) != [] for table in tables] == [True, True]


def test_scores_of_every_kind_of_event_are_under_the_active_imports(settings):
    table = Backends.of(settings).open_table()
    table.put(pointer_item(ImportKind.BOT_OR_NOT, Pointer("v1", 1, 0)))
    table.put(fan_item(ImportKind.BOT_OR_NOT, "v1", user_pk("u1"), 0.9, None, 0))
    ask("enqueueFromStream", kafka(b64(body(1))), settings)
    ask("scoreUsers", sqs((json.dumps({"globalUserId": "u1"}), "g")), settings)
    ask("scoreUsers", dynamodb(ARAI_IMAGE), settings)
    ask("processRescoreEvents", sqs(('{"rescoreId":"r","users":["u1"]}', "g")), settings)
    items = table.query(user_pk("u1"), "SCORE#")
    assert {item["activityType"] for item in items} == {"onDemand", "araiChange", "rescore"}
    assert {(item["bonScore"], item["armRisk"]) for item in items} == {(0.9, 5)}


@pytest.mark.parametrize(
    "event", [{}, {"Records": []}, {"Records": [{}]}, {"Records": "x"}, {"Records": [{"eventSource": "aws:sqs"}]}]
)
def test_what_is_no_event_is_refused_in_one_line(settings, event):
    with pytest.raises(UsageError, match="the event cannot be read"):
        ask("scoreUsers", event, settings)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "Records",
                        "records",
                        "eventSource",
                        "kinesis",
                        "data",
                        "body",
                        "messageId",
                        "dynamodb",
                        "eventName",
                        "value",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).filter(lambda value: isinstance(value, dict))
)
def test_no_event_breaks_the_input_transformation(event):
    try:
        kind, _ = transform_input(event)
    except ValueError:
        return
    assert kind in EventKind


def test_the_handler_picks_the_worker_by_its_name(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("FAN_IDENTITY_STORE", f"sqlite:///{tmp_path}/s.db")
    with pytest.raises(UsageError, match="APP_NAME"):
        handler(kafka(b64(body(1))))
    monkeypatch.setenv("APP_NAME", "enqueueFromStream")

    class Context:
        aws_request_id = "request-7"

    told = handler(kafka(b64(body(1))), Context())
    assert told == {"correlation": {"requestId": "request-7"}, "data": {"enqueued": 1, "read": 1}}


def test_the_command_line_answers_a_captured_event(cli, tmp_path):
    path = tmp_path / "event.json"
    path.write_text(json.dumps(kafka(b64(body(1)))))
    told = cli("lambda", "enqueueFromStream", path, "--store", f"sqlite:///{tmp_path}/s.db")
    assert told.code == 0, told
    assert told.json["data"] == {"enqueued": 1, "read": 1}
    path.write_text("{")
    wrong = cli("lambda", "enqueueFromStream", path, "--store", f"sqlite:///{tmp_path}/s.db")
    assert (wrong.code, len(wrong.err_lines)) == (2, 1)


def test_the_entry_imports_neither_beam_nor_what_its_worker_does_not_use():
    program = (
        "import sys, fan_identity.serving.lambda_handler; "
        "print(*sorted({'apache_beam', 'boto3', 'confluent_kafka', 'redis', 'aiohttp', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_on_lambda_an_invocation_is_one_line_of_metrics(settings, monkeypatch, capsys):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "enqueue")
    answer(kinesis(*map(b64, (body(1), body(2), b"broken"))), None, worker_named("enqueueFromPurchaseStream"), settings)
    (line,) = capsys.readouterr().out.splitlines()
    value = checked(line)
    found = {name: value[name] for name in ("worker", "invocations", "errors", "read", "enqueued")}
    assert found == {
        "worker": "enqueueFromPurchaseStream",
        "invocations": 1,
        "errors": 0,
        "read": 3,
        "enqueued": 2,
    }
    assert value["dead_lettered.malformed"] == 1
    with pytest.raises(UsageError):
        answer({"Records": 7}, None, worker_named("scoreUsers"), settings)
    assert checked(capsys.readouterr().out.rstrip())["errors"] == 1


def test_telemetry_that_fails_is_no_reason_to_do_an_invocation_again(monkeypatch):
    def broken(*args):
        raise RuntimeError("telemetry is broken")

    monkeypatch.setattr(invocation.metrics, "observe_batch", broken)
    one = invocation.Invocation({}, None, worker_named("scoreUsers"), load_settings())
    one.trace = BatchTrace(NOTHING, [], {}, "scoreUsers")
    monkeypatch.setattr(one.trace, "end", broken)
    with one:
        done = True
    assert done
    with pytest.raises(KeyError), one:
        raise KeyError
