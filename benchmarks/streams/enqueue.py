"""Part 1: Kafka to a FIFO queue, messages a second and CPU, beside a loop of confluent-kafka and boto3."""

import tempfile
from typing import Final

from .rounds import Contender, print_table, verdict
from .systems import (
    KAFKA,
    REDIS,
    activities,
    delete_topic,
    depth,
    fifo_queue,
    new_topic,
    produce,
    queue_address,
    score_table,
    table_address,
    unique,
)

TARGET_RATE: Final = 1.5
TARGET_CPU: Final = 1 / 3
WORKER: Final = "enqueueFromStream"


def run(rounds: int, number: int, users: int) -> float:
    """Measures both, in turns, on one topic's content and a fresh queue each.

    Returns:
        Our median of messages a second.
    """
    records = activities(number, users)
    scorable = sum(b"heartbeat" not in value for _, value in records)
    ours = Contender(f"fan-identity {WORKER}", "ours", [WORKER])
    peer = Contender("peer A: confluent-kafka + boto3", "peer_enqueue")
    topic = new_topic()
    produce(topic, records)
    with score_table([]) as table, tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for one in (peer, ours):
                with fifo_queue() as queue:
                    settings = {
                        "source": f"kafka://{KAFKA}/{topic}?group={unique('bench')}",
                        "queue": queue_address(queue),
                        "table": table_address(table),
                        "cache": REDIS,
                        "dead_letters": f"sqlite:///{folder}/dead.db",
                    }
                    done = one.run(settings, *([topic, queue] if one is peer else []))
                    found = depth(queue)
                    if not done == found == scorable:
                        raise SystemExit(f"{one.name}: {scorable:,} scorable, {done:,} sent, {found:,} in the queue")
    delete_topic(topic)
    print(f"\nKafka → filter → FIFO queue: {number:,} activities of {users:,} users, {rounds} alternating rounds")
    print_table([peer, ours], peer)
    rate, cpu = ours.rate / peer.rate, ours.cpu / peer.cpu
    print(f"target: at least {TARGET_RATE} times the messages/s: {rate:.2f}, {verdict(rate >= TARGET_RATE)}")
    print(f"target: at most {TARGET_CPU:.2f} of the CPU: {cpu:.2f}, {verdict(cpu <= TARGET_CPU)}")
    return ours.rate
