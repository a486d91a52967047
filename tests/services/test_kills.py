"""Kills: of workers at random moments, and of every server under them; partitions and shards that change under load.

Servers that are killed are private ones of the same make as the shared ones, since those serve other tests. Every test
keeps a ledger of (user, sequence, id); see ``Ledger`` in conftest.py. No test depends on how far anything was when it
was killed.

DynamoDB Local and ElasticMQ store in memory and come back empty, which no real DynamoDB or SQS does. What was written
before is gone then, and no worker could bring it back; what can hold, and is tested, is that nothing was acknowledged
that was not written when the server died, that the worker says so (exit code 3), and that a replay of the source makes
everything whole. To compare with what was written, a proxy before the server first holds back the requests in question
and waits for the answers of those under way; then the server is killed, and then the held requests find it dead.
"""

import json
import random
import sys

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

pytestmark = pytest.mark.slow

KILLS = 20


@pytest.fixture
def remote(server, system, upstreams):
    """The settings of a system on the shared servers."""
    for name in ("elasticmq", "dynamodb", "redis"):
        server(name)
    return configured(system, system, system, upstreams)


def configured(system, queues, tables, upstreams, cache="redis://127.0.0.1:16390/0"):
    table = tables.table(stream=True)
    system.use(
        queue=queues.queue() + "&wait=1&deadline=5",
        table=table,
        dead_letters=table,
        cache=cache,
        accounts=f"{upstreams.address}/accounts",
        model=f"{upstreams.address}/model/score?batch=16",
        visibility_timeout="3s",
        batch_size="20",
    )
    return system


def through(proxy, address):
    """An address whose endpoint is a proxy."""
    name, _, options = address.partition("?")
    _, *others = options.split("&")
    return "&".join([f"{name}?endpoint={proxy.address}", *others])


def run(cli, system, *arguments, codes=(0,)):
    result = cli("run", *arguments, "--json", env=system.env)
    assert result.code in codes, result
    return result.json if result.out else {}


def streaming(cli, system, *arguments):
    return cli.start("run", *arguments, "--streaming", "--json", env=system.env)


def ended(running):
    """Asks a streaming worker to end."""
    running.signal(2)
    result = running.wait()
    assert result.code == 0, result


def parts(fed, number):
    size = -(-len(fed) // number)
    return [fed[start : start + size] for start in range(0, len(fed), size)]


@pytest.mark.parametrize("seed", range(2))
def test_the_enqueue_worker_killed_at_20_random_moments(cli, remote, make_ledger, server, seed):
    """The records come in 20 parts, so that each kill finds something to do, or just done."""
    server("kafka")
    rng = random.Random(seed)
    ledger = make_ledger(25, 40)
    topic = remote.topic()
    sent = 0
    for part in parts(ledger.fed, KILLS):
        running = streaming(cli, remote, "enqueueFromStream", "--source", topic)
        remote.produce(topic, ledger.records(part))
        goal = sent + rng.randrange(len(part) + 1)
        running.until(lambda goal=goal: remote.depth(remote.settings["queue"]) >= goal, f"{goal} are queued")
        assert running.kill() == -9
        sent += len(part)
    run(cli, remote, "enqueueFromStream", "--source", topic)
    ledger.check_queue(f"enqueueFromStream killed {KILLS} times, seed {seed}")


@pytest.mark.parametrize("seed", range(2))
def test_the_scoring_worker_killed_at_20_random_moments(cli, remote, make_ledger, seed):
    """A killed worker's messages come again when their visibility ends, 3 s later; so does its users' next part."""
    rng = random.Random(seed)
    ledger = make_ledger(25, 40)
    sent = 0
    for part in parts(ledger.fed, KILLS):
        ledger.send(part)
        sent += len(part)
        running = streaming(cli, remote, "scoreUsers")
        left = rng.randrange(len(part) + 1)
        by_score = rng.random() < 0.5  # else by what was acknowledged
        if by_score:
            running.until(lambda goal=sent - left: ledger.settled() >= goal, f"all but {left} are scored")
        else:
            running.until(lambda left=left: remote.depth(remote.settings["queue"]) <= left, f"all but {left} are done")
        assert running.kill() == -9
    run(cli, remote, "scoreUsers")
    ledger.check(f"scoreUsers killed {KILLS} times, seed {seed}")
    assert remote.depth(remote.settings["queue"]) == 0


def test_a_broker_killed_in_the_middle_of_enqueueing(cli, remote, make_ledger, make_system, private):
    """Kafka stores on disk: the worker waits for it, goes on where it was, and nothing is lost."""
    broker = private("kafka")
    topics = make_system(kafka=f"127.0.0.1:{broker.port}")
    rng = random.Random(7)
    ledger = make_ledger(20, 30)
    topic = topics.topic()
    running = streaming(cli, remote, "enqueueFromStream", "--source", f"{topic}?unreachable_seconds=600")
    sent = 0
    for part in parts(ledger.fed, 3):
        topics.produce(topic, ledger.records(part))
        goal = sent + rng.randrange(len(part))
        running.until(lambda goal=goal: remote.depth(remote.settings["queue"]) >= goal, f"{goal} are queued")
        broker.kill9()
        broker.start()
        sent += len(part)
    running.until(lambda: remote.depth(remote.settings["queue"]) == sent, "all are queued")
    ended(running)
    assert run(cli, remote, "enqueueFromStream", "--source", topic).get("enqueued", 0) <= sent
    ledger.check_queue("Kafka killed three times")


def test_a_table_that_dies_has_what_was_acknowledged(
    cli, remote, make_ledger, make_system, private, upstreams, http_proxy
):
    """DynamoDB Local comes back empty: the scores themselves are gone until everything is sent again."""
    database = private("dynamodb")
    proxy = http_proxy(database.address)
    tables = make_system(dynamodb=database.address)
    configured(tables, remote, tables, upstreams)
    direct = tables.settings["table"]
    ledger = make_ledger(20, 30, of=tables)
    queue = tables.settings["queue"]
    half = len(ledger.fed) // 2
    tables.use(table=through(proxy, direct), dead_letters=through(proxy, direct))
    running = streaming(cli, tables, "scoreUsers")
    ledger.send(ledger.fed[:half])
    running.until(lambda: tables.depth(queue) == 0, "half are done")  # and every user's ARAI is stored
    proxy.freeze("BatchWriteItem", "PutItem", "UpdateItem")
    ledger.send(ledger.fed[half:])
    running.until(lambda: proxy.held, "scores are about to be written")
    written = {item["activityId"] for item in ledger.scores()}
    database.kill9()
    proxy.thaw()
    assert running.wait().code == 3
    left = set(ledger.ids_in_queue())
    acknowledged = {one.activity_id for one in ledger.fed} - left
    assert acknowledged <= written, "acknowledged and not written"
    assert acknowledged
    print_figures("DynamoDB killed", fed=len(ledger.fed), written=len(written), acknowledged=len(acknowledged))
    # Everything once more, to a table that is new: what the cache knows already stays, since it is not older.
    database.start()
    configured(tables, remote, tables, upstreams)
    ledger.send()
    run(cli, tables, "scoreUsers")
    ledger.check("DynamoDB killed, then a replay")


def print_figures(what, **figures):
    sys.stdout.write(f"\nledger {what}: {' '.join(f'{name}={number}' for name, number in figures.items())}\n")


def test_a_queue_that_dies_under_the_enqueue_worker(
    cli, remote, make_ledger, make_system, private, upstreams, http_proxy, server
):
    """ElasticMQ comes back empty: its messages are gone, and are read again from Kafka by a range."""
    server("kafka")
    service = private("elasticmq")
    proxy = http_proxy(service.address)
    queues = make_system(sqs=service.address)
    configured(queues, queues, remote, upstreams)
    direct = queues.settings["queue"]
    ledger = make_ledger(20, 30, of=queues)
    topic = remote.topic()
    queues.use(queue=through(proxy, direct))
    running = streaming(cli, queues, "enqueueFromStream", "--source", topic)
    first, *others = parts(ledger.fed, 3)
    remote.produce(topic, ledger.records(first))
    running.until(lambda: committed(topic), "offsets are committed")
    proxy.freeze("SendMessageBatch")
    queued = set(ledger.ids_in_queue())
    for part in others:
        remote.produce(topic, ledger.records(part))
    running.until(lambda: proxy.held, "a batch is about to be sent")
    service.kill9()
    proxy.thaw()
    assert running.wait().code == 3
    done = committed(topic)
    assert done
    assert done <= queued, "committed and not queued"
    print_figures("ElasticMQ killed", fed=len(ledger.fed), queued=len(queued), committed=len(done))
    service.start()
    queues.sqs.create_queue(QueueName=name_of(direct), Attributes={"FifoQueue": "true"})
    queues.use(queue=direct)
    rest = run(cli, queues, "enqueueFromStream", "--source", topic)
    assert rest.get("enqueued", 0) == len(ledger.fed) - len(done), "it goes on at what was committed"
    # Behind the rest they would be out of order: all of it goes to a queue that is new.
    queues.use(queue=queues.queue())
    again = run(cli, queues, "enqueueFromStream", "--source", f"{topic}?start_time=2020-01-01T00:00:00Z")
    assert again["enqueued"] == len(ledger.fed)
    run(cli, queues, "scoreUsers")
    ledger.check("ElasticMQ killed under enqueueFromStream, then a replay")


def name_of(address):
    return address.partition("://")[2].partition("?")[0]


def committed(topic, group="enqueueFromStream"):
    """The ids of the records before a group's committed offsets."""
    broker, _, name = topic.removeprefix("kafka://").rpartition("/")
    consumer = Consumer({"bootstrap.servers": broker, "group.id": group, "enable.auto.commit": False})
    try:
        places = [TopicPartition(name, number) for number in consumer.list_topics(name, 60).topics[name].partitions]
        ends = {place.partition: place.offset for place in consumer.committed(places, 60) if place.offset > 0}
        found = set()
        for partition, end in ends.items():
            consumer.assign([TopicPartition(name, partition, 0)])
            for _ in range(end):
                message = consumer.poll(60)
                assert message is not None and message.error() is None
                found.add(json.loads(message.value())["activityId"])
        return found
    finally:
        consumer.close()


def test_a_queue_that_dies_under_the_scoring_worker(
    cli, remote, make_ledger, make_system, private, upstreams, http_proxy
):
    """What waits in ElasticMQ is gone with it, and cannot be known by id; but by number, it was not acknowledged."""
    service = private("elasticmq")
    proxy = http_proxy(service.address)
    queues = make_system(sqs=service.address)
    configured(queues, queues, remote, upstreams)
    direct = queues.settings["queue"]
    ledger = make_ledger(20, 30, of=queues)
    ledger.send()
    queues.use(queue=through(proxy, direct))
    running = streaming(cli, queues, "scoreUsers")
    running.until(lambda: queues.depth(direct) <= len(ledger.fed) // 2, "half are done")
    proxy.freeze("DeleteMessageBatch")
    running.until(lambda: proxy.held or not queues.depth(direct), "a batch is about to be acknowledged")
    acknowledged = len(ledger.fed) - queues.depth(direct)
    held, written = proxy.held, ledger.settled()
    service.kill9()
    proxy.thaw()
    assert running.wait().code == 3
    assert 0 < acknowledged <= written
    assert not held or acknowledged < written, "what is about to be acknowledged is written"
    print_figures("ElasticMQ killed", fed=len(ledger.fed), written=written, acknowledged=acknowledged)
    service.start()
    queues.sqs.create_queue(QueueName=name_of(direct), Attributes={"FifoQueue": "true"})
    queues.use(queue=direct)
    ledger.send()
    run(cli, queues, "scoreUsers")
    ledger.check("ElasticMQ killed under scoreUsers, then a replay")


def test_a_cache_that_dies_has_what_was_acknowledged(cli, remote, make_ledger, private):
    """A Redis that stores every write: what it acknowledged is there after the crash.

    One that stores in memory cannot hold that: an entry is gone until its user is scored again (test_faults.py).
    """
    cache = private("redis", "--appendonly", "yes", "--appendfsync", "always")
    remote.use(cache=f"redis://127.0.0.1:{cache.port}/0")
    ledger = make_ledger(20, 30, redis_port=cache.port)
    ledger.send()
    running = streaming(cli, remote, "scoreUsers")
    running.until(lambda: remote.depth(remote.settings["queue"]) <= len(ledger.fed) // 2, "half are done")
    cache.kill9()
    assert running.wait().code == 3, "it gave up"
    left = ledger.ids_in_queue()
    acknowledged = [one for one in ledger.fed if one.activity_id not in set(left)]
    cache.start()
    cached = ledger.cached()
    behind = [one for one in acknowledged if cached.get(one.user, {"timestamp": 0})["timestamp"] < one.time_ms]
    print_figures("Redis killed", fed=len(ledger.fed), acknowledged=len(acknowledged), behind=len(behind))
    assert acknowledged
    assert not behind, "acknowledged and not in the cache"
    remote.use(queue=remote.queue())
    ledger.send([one for one in ledger.fed if one.activity_id in set(left)])
    run(cli, remote, "scoreUsers")
    ledger.check("Redis killed, then started")


def test_new_partitions_and_a_rebalance_under_load(cli, remote, make_ledger, server):
    """Partitions are added while records come, and a stranger joins and leaves the worker's group.

    The workers assign partitions by number and take part in no rebalance; a group with members refuses their commits,
    which may make the next run read records again, and never skip any. Kafka itself keeps no order over a key that
    moves: here each user stays in one partition, as a producer has to see to when it adds partitions.
    """
    server("kafka")
    ledger = make_ledger(24, 30)
    topic = remote.topic(2)
    broker, _, name = topic.removeprefix("kafka://").rpartition("/")
    admin = AdminClient({"bootstrap.servers": broker})
    running = streaming(cli, remote, "enqueueFromStream", "--source", f"{topic}?discover_seconds=1")
    stranger = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "enqueueFromStream",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    first, second, third = parts(ledger.users, 3)
    try:
        produce(broker, name, ledger, first, 0, 15, partitions=2, lowest=0)
        stranger.subscribe([name])
        stranger.poll(1)
        admin.create_partitions([NewPartitions(name, 6)])[name].result(60)
        produce(broker, name, ledger, second, 0, 15, partitions=2, lowest=2)
        produce(broker, name, ledger, first, 15, 30, partitions=2, lowest=0)
        stranger.poll(1)
    finally:
        stranger.close()
    produce(broker, name, ledger, second, 15, 30, partitions=2, lowest=2)
    produce(broker, name, ledger, third, 0, 30, partitions=2, lowest=4)
    running.until(lambda: remote.depth(remote.settings["queue"]) == len(ledger.fed), "all are queued")
    ended(running)
    again = run(cli, remote, "enqueueFromStream", "--source", topic)
    assert again.get("read", 0) <= len(ledger.fed)
    ledger.check_queue("new partitions and a stranger in the group")


def produce(broker, name, ledger, users, start, stop, *, partitions, lowest):
    """Sends users' activities of some sequences, each user's to one partition."""
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True})
    for one in ledger.fed:
        if one.user in users and start <= one.sequence < stop:
            partition = lowest + users.index(one.user) % partitions
            producer.produce(name, one.activity, key=one.user.encode(), partition=partition)
            producer.poll(0)
    assert producer.flush(60) == 0


def test_a_split_and_a_merge_under_load(cli, remote, make_ledger, server):
    """A shard is split in the middle of the records, and the halves are merged; a user's records move along."""
    server("kinesalite")
    ledger = make_ledger(20, 24)
    stream = remote.stream(1)
    name = name_of(stream)
    running = streaming(cli, remote, "enqueueFromPurchaseStream", "--source", f"{stream}&discover_seconds=1")
    rounds = parts(ledger.fed, 24)  # one of each user
    for number, part in enumerate(rounds):
        remote.put_records(stream, ledger.records(part))
        if number == 6:
            remote.kinesis.split_shard(
                StreamName=name, ShardToSplit=open_shards(remote, name)[0], NewStartingHashKey=str(2**127)
            )
            wait_active(remote, name)
        if number == 12:
            one, other = open_shards(remote, name)
            remote.kinesis.merge_shards(StreamName=name, ShardToMerge=one, AdjacentShardToMerge=other)
            wait_active(remote, name)
        if number == 18:
            running.until(lambda: remote.depth(remote.settings["queue"]) > 0, "one is queued")
            running.kill()
            running = streaming(cli, remote, "enqueueFromPurchaseStream", "--source", f"{stream}&discover_seconds=1")
    running.until(lambda: remote.depth(remote.settings["queue"]) == len(ledger.fed), "all are queued")
    ended(running)
    assert len(remote.kinesis.list_shards(StreamName=name)["Shards"]) == 4
    ledger.check_queue("a split and a merge")


def open_shards(system, name):
    shards = system.kinesis.list_shards(StreamName=name)["Shards"]
    alive = [one for one in shards if "EndingSequenceNumber" not in one["SequenceNumberRange"]]
    return [one["ShardId"] for one in sorted(alive, key=lambda one: int(one["HashKeyRange"]["StartingHashKey"]))]


def wait_active(system, name):
    system.kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
