"""One trace from a Kafka record to the resolver's answer, over real servers, as a collector receives it.

What is drawn where a test fails is every span received, as trees.
"""

import base64
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.otlp_receiver import OtlpReceiver, attributes_of, otlp_receiver
from tests.span_trees import Traces

TRACE = "0af7651916cd43dd8448eb211c80319c"
SENT_IN = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SENT_IN}-01"
HOSTILE = [
    b"",
    b"garbage",
    b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
    f"ff-{TRACE}-{SENT_IN}-01".encode(),
    f"00-{TRACE.upper()}-{SENT_IN}-01".encode(),
    f"00-{TRACE}-{SENT_IN}-01-more".encode(),
    b"00-" + b"a" * 10_000,
    b"\xff\xfe\x00",
    None,
]
CANARY = "canary-user"


@pytest.fixture
def collector() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture
def traced(server, system, upstreams):
    """A system on real servers whose commands export to the collector what records' own traces choose."""
    for name in ("kafka", "elasticmq", "dynamodb", "redis"):
        server(name)
    table = system.table()
    system.use(
        queue=system.queue(),
        table=table,
        dead_letters=table,
        cache="redis://127.0.0.1:16390/0",
        accounts=f"{upstreams.address}/accounts",
        model=f"{upstreams.address}/model/score?batch=64",
    )
    return system


def env(system, collector, **more):
    telemetry = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_TRACES_SAMPLER_ARG": "0",
    }
    return {**system.env, **telemetry, **more}


def user_of(system):
    return f"{CANARY}-{system.prefix}"


def body(system, number=1, **more):
    now = int(time.time() * 1_000) - 60_000 + number
    named = {"activityId": f"a{number}", "activityType": "login", "occurredAt": now, "globalUserId": user_of(system)}
    return json.dumps({**named, **more}).encode()


def produce(topic: str, *records: tuple[bytes, list[Any]]) -> None:
    """Sends (value, headers) to a topic."""
    producer = Producer({"bootstrap.servers": topic.removeprefix("kafka://").partition("/")[0]})
    for value, headers in records:
        producer.produce(topic.rpartition("/")[2], value, headers=headers)
    assert producer.flush(60) == 0


def run(cli, environment, *arguments, code=0):
    result = cli("run", *arguments, "--json", env=environment)
    assert result.code == code, result
    return result.json


def ask(address: str, token: str, path: str, asked: Any = None, **headers: str) -> Any:
    request = urllib.request.Request(
        address + path,
        None if asked is None else json.dumps(asked).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def assert_nobody_is_named(collector: OtlpReceiver) -> None:
    for sent in collector.bodies:
        assert CANARY.encode() not in sent, "a span names a user"


def check_worker(traces: Traces, batch: Any, services: dict[str, str]) -> None:
    """A worker's spans are the reference's, with its services inside of the business logic."""
    phases = [child.name for child in traces.children(batch)]
    assert phases == ["Transform Input", "Business Logic", "Result Handler"], f"{phases} in\n{traces}"
    logic = traces.children(batch)[1]
    below = [span for span in traces.spans if logic.name in traces.path(span)[:-1] and batch.name in traces.path(span)]
    found = {span.name: span for span in below}
    for name, system in services.items():
        assert name in found, f"no {name!r} in\n{traces}"
        told = attributes_of(found[name])
        kind = told.get("db.system.name") or told.get("messaging.system") or told.get("http.request.method")
        assert kind == system, f"{name}: {told}"


def test_one_trace_from_kafka_to_the_resolvers_answer(cli, traced, collector, tmp_path):
    topic = traced.topic(1)
    produce(topic, (body(traced), [("traceparent", TRACEPARENT.encode()), ("other", b"x")]))
    environment = env(traced, collector)
    assert run(cli, environment, "enqueueFromStream", "--source", topic)["enqueued"] == 1
    assert run(cli, environment, "scoreUsers")["scored"] == 1
    (item,) = traced.items(traced.settings["table"])
    stored = item["traceparent"]
    table = traced.settings["table"].removeprefix("dynamodb://").partition("?")[0]
    queue = traced.settings["queue"].removeprefix("sqs://").partition("?")[0]

    serving = {"OTEL_TRACES_SAMPLER_ARG": "1", "FAN_IDENTITY_STORE": f"sqlite:///{tmp_path}/rest.db"}
    serve = cli.start("serve", "--development", "--port", 0, "--json", env=env(traced, collector, **serving))
    told = json.loads(serve.until(lambda: serve.out, "it listens"))
    query = "query FanScore($id: ID!) { api { accountFanscore(globalUserId: $id) { score } } }"
    asked = {"query": query, "variables": {"id": user_of(traced)}}
    address, token = told["address"], told["tokens"]["service"]
    scored = ask(address, token, "/graphql", asked, traceparent=f"00-{'c' * 32}-{'d' * 16}-01")
    assert scored["data"]["api"]["accountFanscore"]["score"] >= 0, scored
    assert ask(address, token, f"/arm/{user_of(traced)}")["armScore"] == item["armRisk"]
    serve.signal(2)
    assert serve.wait().code == 0

    traces = Traces(collector.spans())
    one = traces.of(bytes.fromhex(TRACE))
    read, sent, received = (
        one.one(f"process {topic.rpartition('/')[2]}"),
        next(span for span in one.named(f"send {queue}") if span.kind == span.SPAN_KIND_PRODUCER),
        one.one(f"process {queue}"),
    )
    assert read.parent_span_id.hex() == SENT_IN, f"the record's own parent in\n{traces}"
    assert one.path(received) == [read.name, sent.name, received.name], str(traces)
    assert stored == f"00-{TRACE}-{received.span_id.hex()}-01"
    assert attributes_of(read)["messaging.kafka.offset"] == "0"
    enqueueing, scoring = one.one("enqueueFromStream"), one.one("scoreUsers")
    assert one.parent(enqueueing) is read
    assert one.parent(scoring) is received, "a message alone in its batch has the batch in its trace"
    check_worker(one, enqueueing, {f"send {queue}": "aws_sqs"})
    check_worker(
        one,
        scoring,
        {
            "accounts": "GET",
            "model": "POST",
            f"BatchWriteItem {table}": "aws.dynamodb",
            f"PutItem {table}": "aws.dynamodb",
            "EVALSHA redis": "redis",
        },
    )
    assert one.parent(one.one(f"delete {queue}")).name == "Acknowledge"

    request = traces.one("POST /graphql")
    assert request.trace_id.hex() not in (TRACE, "c" * 32), "a request begins a trace of its own"
    assert [link.trace_id.hex() for link in request.links] == ["c" * 32], "and is linked to its caller's"
    function = traces.one("getAccountFanscoreGlobalUserId")
    assert traces.path(function) == ["POST /graphql", "GraphQL query", function.name], str(traces)
    assert [span.span_id for span in traces.linked(function)] == [received.span_id], str(traces)
    assert traces.children(function)[0].name == f"GetItem {table}"
    lookup = traces.one("GET /arm/{globalUserId}")
    assert [span.span_id for span in traces.linked(lookup)] == [received.span_id], str(traces)
    assert [child.name for child in traces.children(lookup)] == ["GET redis"]
    assert attributes_of(traces.one("GraphQL query"))["graphql.operation.name"] == "FanScore"
    assert_nobody_is_named(collector)
    (tmp_path / "trace.txt").write_text(str(traces))


def test_a_batch_of_many_is_linked_with_each_of_its_messages(cli, traced, collector):
    topic, ids = traced.topic(1), [f"{number:032x}" for number in range(1, 201)]
    records = [
        (body(traced, number), [("traceparent", f"00-{trace}-{SENT_IN}-01".encode())])
        for number, trace in enumerate(ids)
    ]
    unsampled = (body(traced, 900), [("traceparent", f"00-{'e' * 32}-{SENT_IN}-00".encode())])
    produce(topic, *records, unsampled, *((body(traced, 1_000 + n), []) for n in range(10)))
    run(cli, env(traced, collector), "enqueueFromStream", "--source", topic)
    traces = Traces(collector.spans())
    name = f"process {topic.rpartition('/')[2]}"
    assert {span.trace_id.hex() for span in traces.named(name)} == set(ids), "those that were sampled, no other"
    batches = traces.named("enqueueFromStream")
    assert sum(min(len(batch.links), 128) for batch in batches) == sum(len(batch.links) for batch in batches)
    for span in traces.named(name):
        (batch,) = traces.linked(span)
        assert batch in batches
    assert {span.name for batch in batches for span in traces.linked(batch)} == {name}
    bodies = [json.loads(message) for message in traced.drain(traced.settings["queue"])]
    carried = {message["activityId"]: message.get("traceparent") for message in bodies}
    assert {carried[f"a{number}"].split("-")[1] for number in range(200)} == set(ids)
    assert carried["a900"] == f"00-{'e' * 32}-{SENT_IN}-00", "told on as it came"
    assert {carried[f"a{1_000 + n}"] for n in range(10)} == {None}
    assert_nobody_is_named(collector)


def test_hostile_traceparents_are_ignored(cli, traced, collector):
    topic = traced.topic(1)
    many = [("traceparent", TRACEPARENT.encode())] * 3
    records = [(body(traced, number), [("traceparent", value)]) for number, value in enumerate(HOSTILE)]
    in_bodies = [{"a": 1}, [TRACEPARENT], 7, None, "x" * 10_000, TRACEPARENT.upper()]
    for number, value in enumerate(in_bodies):
        records.append((body(traced, 100 + number, traceparent=value), []))
    produce(topic, *records, (body(traced, 200), many))
    number = len(records) + 1
    environment = env(traced, collector)
    counts = run(cli, environment, "enqueueFromStream", "--source", topic)
    assert counts["enqueued"] == number
    message = json.loads(body(traced, 300))
    ours = {**message, "requestId": "r", "worker": "enqueueFromStream", "activity": message}
    for hostile in ({"a": 1}, "x" * 10_000, 7):
        traced.send(traced.settings["queue"], json.dumps({**ours, "traceparent": hostile}).encode())
    on_demand = json.dumps({"globalUserId": user_of(traced), "traceparent": [1]}).encode()
    traced.send(traced.settings["queue"], on_demand, b'{"traceparent":"nothing else"}')
    assert run(cli, environment, "scoreUsers", code=1)["dead_lettered.malformed"] == 1, "of none a traceparent is why"
    items = traced.items(traced.settings["table"])
    assert len(items) == number + 2
    assert not any("traceparent" in item for item in items)
    assert collector.spans() == []


@pytest.mark.parametrize(
    "off",
    [
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "true"},
    ],
)
def test_without_sampling_nothing_is_sent_and_no_trace_is_left(cli, traced, collector, off):
    topic = traced.topic(1)
    produce(topic, (body(traced), [("traceparent", TRACEPARENT.encode())]))
    environment = env(traced, collector, **off)
    run(cli, environment, "enqueueFromStream", "--source", topic)
    run(cli, environment, "scoreUsers")
    (item,) = traced.items(traced.settings["table"])
    assert "traceparent" not in item
    assert collector.bodies == []


def test_a_lambda_continues_the_trace_and_draws_the_references_spans(cli, traced, collector, tmp_path):
    asked = {**json.loads(body(traced)), "traceparent": TRACEPARENT}
    value = base64.b64encode(json.dumps(asked).encode()).decode()
    record = {"topic": "activities", "partition": 0, "offset": 5, "value": value}
    header = [{"traceparent": list(f"00-{'f' * 32}-{SENT_IN}-01".encode())}]
    event = {"eventSource": "aws:kafka", "records": {"activities-0": [{**record, "headers": header}]}}
    environment = env(traced, collector)
    answer_of(cli, environment, "enqueueFromStream", event, tmp_path)
    (message,) = traced.drain(traced.settings["queue"])
    assert json.loads(message)["traceparent"].split("-")[1] == "f" * 32, "what travels beside the record goes first"
    sqs = {
        "messageId": "m-1",
        "body": message.decode(),
        "attributes": {"MessageGroupId": "g", "ApproximateReceiveCount": "1"},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:activities.fifo",
    }
    assert answer_of(cli, environment, "scoreUsers", {"Records": [sqs]}, tmp_path) == {"batchItemFailures": []}
    (item,) = traced.items(traced.settings["table"])
    one = Traces(collector.spans()).of(b"\xff" * 16)
    invocation = one.one("scoreUsers")
    assert one.path(invocation)[0] == "process activities", str(one)
    assert one.path(invocation)[2:] == ["process activities.fifo", "scoreUsers"], str(one)
    assert item["traceparent"] == f"00-{'f' * 32}-{one.one('process activities.fifo').span_id.hex()}-01"
    table = traced.settings["table"].removeprefix("dynamodb://").partition("?")[0]
    check_worker(one, invocation, {"accounts": "GET", "model": "POST", f"BatchWriteItem {table}": "aws.dynamodb"})
    assert attributes_of(invocation)["faas.trigger"] == "pubsub"
    assert_nobody_is_named(collector)


def answer_of(cli, environment, worker, event, folder):
    """What a Lambda in a process of its own answers to an event."""
    captured = folder / "event.json"
    captured.write_text(json.dumps(event))
    result = cli("lambda", worker, captured, env=environment)
    assert result.code == 0, result
    return result.json


def test_sqs_attributes_and_kinesis_bodies_carry_a_trace_too(cli, traced, collector, server):
    server("kinesalite")
    stream = traced.stream(1)
    traced.put_records(stream, [("k", body(traced, traceparent=TRACEPARENT))])
    environment = env(traced, collector)
    run(cli, environment, "enqueueFromPurchaseStream", "--source", stream)
    (message,) = [json.loads(text) for text in traced.drain(traced.settings["queue"])]
    assert message["traceparent"].startswith(f"00-{TRACE}-") and message["traceparent"] != TRACEPARENT
    asked = json.dumps({"globalUserId": user_of(traced)})
    attribute = {"traceparent": {"DataType": "String", "StringValue": f"00-{'b' * 32}-{SENT_IN}-01"}}
    traced.sqs.send_message(
        QueueUrl=traced.url(traced.settings["queue"]),
        MessageBody=asked,
        MessageGroupId="g",
        MessageDeduplicationId="d",
        MessageAttributes=attribute,
    )
    run(cli, environment, "scoreUsers")
    (item,) = traced.items(traced.settings["table"])
    assert item["traceparent"].startswith(f"00-{'b' * 32}-")
    assert_nobody_is_named(collector)
