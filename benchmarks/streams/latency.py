"""Part 3: latency on Prism at half load: Kafka until readable in the queue, queue until persisted.

Clocks are this machine's. A message is readable when the queue says it was sent (``SentTimestamp``, milliseconds); a
score is persisted when it can be read in the ARM cache, which is written after the table.
"""

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from confluent_kafka import Producer

from ...domain.keys import fifo_group_id
from ...domain.messages import decode_message
from ...io.addresses import Address
from ...io.ports import QueueEntry
from ...io.sqs.queue import SqsQueue
from .live import evenly, percentile, percentiles, streaming
from .rounds import verdict
from .score import MODEL_MS, scoring_messages, settings_of
from .systems import (
    KAFKA,
    REDIS,
    SQS,
    activity,
    cached,
    delete_topic,
    depth,
    fifo_queue,
    forget,
    model_server,
    new_topic,
    queue_address,
    score_table,
    table_address,
    unique,
)

TARGET_ENQUEUE_MS: Final = 250
TARGET_SCORE_MS: Final = 500
_WARM_SECONDS: Final = 2
_USERS: Final = 2_000
_SENDERS: Final = 8
_WATCH_SECONDS: Final = 0.005
_PATIENCE: Final = 300.0


def run(enqueue_rate: float, score_rate: float, seconds: int, runner: str = "PrismRunner") -> None:
    """Streams both halves, one after the other, and prints their latency's percentiles.

    Args:
        enqueue_rate: activities a second.
        score_rate: messages a second.
        seconds: of measuring, after a warm-up.
        runner: Beam's.
    """
    waits = enqueue_waits(enqueue_rate, seconds, runner)
    p99 = percentile(waits, 0.99)
    print(f"\nLatency on {runner}, Kafka → readable in the queue, {enqueue_rate:,.0f} activities/s for {seconds} s")
    print(f"{len(waits):,} messages; {percentiles(waits)}")
    print(f"target: p99 under {TARGET_ENQUEUE_MS} ms: {verdict(p99 < TARGET_ENQUEUE_MS)}")
    waits = score_waits(score_rate, seconds, runner)
    p99 = percentile(waits, 0.99)
    print(
        f"\nLatency on {runner}, queue → persisted, a model of {MODEL_MS} ms, {score_rate:,.0f} messages/s "
        f"for {seconds} s"
    )
    print(f"{len(waits):,} scores; {percentiles(waits)}")
    print(f"target: p99 under {TARGET_SCORE_MS} ms: {verdict(p99 < TARGET_SCORE_MS)}")


def enqueue_waits(rate: float, seconds: int, runner: str) -> list[float]:
    """Milliseconds of each activity from the producer until it was in the queue."""
    topic = new_topic()
    sent_ms: dict[str, float] = {}
    producer: Any = Producer({"bootstrap.servers": KAFKA, "linger.ms": 0})

    def produce(number: int) -> None:
        user, now = f"user-{number % _USERS:06d}", time.time() * 1_000
        sent_ms[f"a-{number:08d}"] = now
        producer.produce(topic, activity(number, user, int(now)), key=user.encode())
        producer.poll(0)

    with fifo_queue() as queue, tempfile.TemporaryDirectory() as folder:
        settings = {
            "source": f"kafka://{KAFKA}/{topic}",
            "queue": queue_address(queue),
            "table": table_address("unused"),
            "cache": REDIS,
            "dead_letters": f"sqlite:///{folder}/dead.db",
        }
        with streaming("enqueueFromStream", settings, runner) as worker:
            warm = evenly(rate, _WARM_SECONDS, produce)
            worker.until(lambda: depth(queue) >= warm, "the warm-up is in the queue")
            last = evenly(rate, seconds, produce, warm)
            producer.flush()
            worker.until(lambda: depth(queue) >= last, "all are in the queue")
            worker.drain()
        readable_ms = _received(queue, last)
    delete_topic(topic)
    return [readable_ms[name] - sent_ms[name] for name in (f"a-{number:08d}" for number in range(warm, last))]


def _received(name: str, number: int) -> dict[str, int]:
    """When each activity's message became readable, epoch milliseconds; empties the queue."""
    queue = SqsQueue(Address("sqs", name, {"endpoint": SQS}), "queue", 60_000)
    found: dict[str, int] = {}
    deadline = time.monotonic() + _PATIENCE
    while len(found) < number:
        messages = queue.receive(500)
        found.update((decode_message(message.body).activity_id, message.sent_at_ms) for message in messages)
        queue.delete([message.receipt for message in messages])
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(found):,} of {number:,} messages were received")
        if not messages:
            time.sleep(_WATCH_SECONDS)
    queue.close()
    return found


class _Watch:
    """Notes when each user's score can be read in the ARM cache."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        self.waiting: dict[str, None] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(_WATCH_SECONDS):
            names = list(self.waiting)
            if not names:
                continue
            found = cached(names)
            now = time.perf_counter()
            for name, value in zip(names, found, strict=True):
                if value is not None:
                    self.seen[name] = now
                    del self.waiting[name]

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def score_waits(rate: float, seconds: int, runner: str) -> list[float]:
    """Milliseconds of each message from its sending until its score can be read; each is of a user of its own."""
    total = int(rate * _WARM_SECONDS) + int(rate * seconds)
    prefix = unique("bench")
    messages = scoring_messages(total, None, prefix)
    names = [user for user, _ in messages]
    sent: dict[str, float] = {}
    watch = _Watch()
    with model_server(MODEL_MS) as model, fifo_queue() as name, score_table(names) as table:
        queue = SqsQueue(Address("sqs", name, {"endpoint": SQS}), "queue", 60_000)

        def send(number: int) -> None:
            user, message = messages[number]
            sent[user] = time.perf_counter()
            watch.waiting[user] = None
            queue.send([QueueEntry(fifo_group_id(user), user, message)])

        settings = settings_of(name, table, f"{model}?batch=64")
        with streaming("scoreUsers", settings, runner) as worker, ThreadPoolExecutor(_SENDERS) as pool:
            warm = evenly(rate, _WARM_SECONDS, lambda number: pool.submit(send, number))
            worker.until(lambda: len(watch.seen) >= warm, "the warm-up is scored")
            last = evenly(rate, seconds, lambda number: pool.submit(send, number), warm)
            worker.until(lambda: len(watch.seen) >= last, "all are scored")
            worker.drain()
        queue.close()
        watch.close()
        forget(names)
    return [1_000 * (watch.seen[user] - sent[user]) for user in names[warm:last]]
