"""What a wrong address or a bad record gets: one line naming the setting, exit 2 or 3; batch-mates are delivered."""

import json
import time

import pytest

NOW = int(time.time() * 1_000) - 60_000
NOWHERE = "http://127.0.0.1:9"


def record(number, user="u1", **more):
    return json.dumps(
        {"activityId": f"a{number}", "activityType": "login", "occurredAt": NOW + number, "globalUserId": user, **more}
    ).encode()


@pytest.fixture
def remote(server, system):
    for name in ("kafka", "elasticmq", "dynamodb", "redis", "kinesalite"):
        server(name)
    table = system.table()
    system.use(queue=system.queue(), table=table, dead_letters=table, cache="redis://127.0.0.1:16390/0")
    return system


def refused(cli, system, *arguments, code, says, env=None):
    result = cli("run", *arguments, env={**system.env, **(env or {})})
    assert result.code == code, result
    (line,) = result.err_lines
    assert says in line, line


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ("rabbitmq://host/queue", 2, "--source: rabbitmq:// is not supported here; use one of kafka://"),
        ("kafka://127.0.0.1:19092/no-such-topic", 2, "--source: topic no-such-topic does not exist"),
        ("kafka://127.0.0.1:19092/", 2, "--source"),
        ("kafka://127.0.0.1:9/topic?unreachable_seconds=1", 3, "--source: kafka://127.0.0.1:9/topic is out of reach"),
        ("kafka://127.0.0.1:19092/t?strat=earliest", 2, "strat"),
        (
            "kinesis://no-such-stream?endpoint=http://127.0.0.1:14570",
            2,
            "--source: kinesis://no-such-stream does not exist",
        ),
        ("dynamodb-streams://no-such-table?endpoint=http://127.0.0.1:18000", 2, "--source"),
        ("sqs://no-such-queue?endpoint=http://127.0.0.1:19324", 2, "--source: sqs://no-such-queue does not exist"),
    ],
)
def test_a_wrong_source(cli, remote, source, code, says):
    refused(cli, remote, "enqueueFromStream", "--source", source, code=code, says=says)


@pytest.mark.parametrize(
    ("flag", "address", "code", "says"),
    [
        (
            "--queue",
            "sqs://no-such-queue.fifo?endpoint=http://127.0.0.1:19324",
            2,
            "--queue: sqs://no-such-queue.fifo does not",
        ),
        ("--queue", "sqs://q.fifo?endpiont=http://127.0.0.1:19324", 2, "endpiont"),
        (
            "--queue",
            "kafka://host/topic",
            2,
            "--queue: kafka:// is not supported here; use sqlite:///file.db or sqs://",
        ),
        (
            "--table",
            "dynamodb://no-such-table?endpoint=http://127.0.0.1:18000",
            2,
            "--table: dynamodb://no-such-table does not",
        ),
        ("--table", f"dynamodb://tab?endpoint={NOWHERE}", 3, "--table: dynamodb://tab is out of reach"),
        ("--cache", "redis://127.0.0.1:9/0", 3, "--cache: redis://127.0.0.1:9/0 is out of reach"),
        (
            "--dead-letters",
            "dynamodb://no-such-table?endpoint=http://127.0.0.1:18000",
            2,
            "--dead-letters: dynamodb://",
        ),
    ],
)
def test_a_wrong_backend(cli, remote, flag, address, code, says):
    refused(cli, remote, "scoreUsers", flag, address, code=code, says=says)


def test_no_region_and_no_credentials(cli, remote, monkeypatch):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delitem(cli.environment, name, raising=False)
        remote.settings.pop(name, None)
    clouds_own = ("--queue", "sqs://some-queue.fifo")
    refused(cli, remote, "scoreUsers", *clouds_own, code=2, says="no region; add ?region=")
    remote.settings["AWS_DEFAULT_REGION"] = "eu-west-1"
    nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    refused(cli, remote, "scoreUsers", code=2, says="no AWS credentials", env=nobody)


def test_queues_of_the_other_kind(cli, remote):
    topic = remote.topic(1)
    standard, fifo = remote.queue(fifo=False), remote.settings["queue"]
    source = ("--source", topic)
    refused(
        cli,
        remote,
        "enqueueFromStream",
        *source,
        "--queue",
        standard,
        code=2,
        says="is a standard queue and keeps no order",
    )
    refused(
        cli,
        remote,
        "enqueueFromDemandStream",
        *source,
        "--queue",
        fifo,
        code=2,
        says="is a FIFO queue; name a standard",
    )


def test_a_message_over_the_queues_limit_is_a_dead_letter_and_its_mates_are_delivered(cli, remote):
    topic = remote.topic(1)
    # An activity a little under SQS's 1 MiB; the message around it is over.
    large = record(2, attributes={"x": ""})
    large = record(2, attributes={"x": "y" * (1_048_500 - len(large))})
    remote.produce(topic, [("u1", record(1)), ("u1", large), ("u1", record(3))])
    told = cli("run", "enqueueFromStream", "--source", topic, "--json", env=remote.env)
    assert (told.code, told.json["enqueued"], told.json["dead_lettered.too_large"]) == (1, 2, 1), told
    assert remote.depth(remote.settings["queue"]) == 2


def test_an_item_over_the_tables_limit_is_a_dead_letter_and_its_mates_are_stored(cli, remote):
    def result(number, provider):
        event = {"verificationId": f"v{number}", "globalUserId": "u", "status": "PASSED", "occurredAt": NOW + number}
        return json.dumps({**event, "provider": provider}).encode()

    remote.use(identity_queue=remote.queue(fifo=False), verification_table=remote.settings["table"])
    remote.send(remote.settings["identity_queue"], result(1, "p"), result(2, "p" * 500_000), result(3, "p"))
    told = cli("run", "handleEvent", "--json", env=remote.env)
    assert (told.code, told.json["stored"], told.json["dead_lettered.too_large"]) == (1, 2, 1), told
    stored = remote.items(remote.settings["table"], "VERIFICATION#")
    assert [item["verificationId"] for item in stored] == ["v1", "v3"]
