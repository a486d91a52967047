"""Peer A: the enqueue worker written by hand with confluent-kafka and boto3.

The same work: read, decode, keep what is scorable, make the same message, send it in batches of ten from eight threads,
each user always by the same thread so that their order is kept, send again what was not taken, commit at the end.
"""

import hashlib
import json
import sys
import threading
import time
import uuid
from queue import Empty, Queue
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError

from ...domain.activity import ACTIVITY_TYPES
from .rounds import Stopwatch
from .systems import KAFKA, PARTITIONS, SQS, aws

THREADS: Final = 8
BATCH: Final = 10
_WORKER: Final = "enqueueFromStream"
_TYPES: Final = frozenset(ACTIVITY_TYPES)
_FUTURE_MS: Final = 300_000
_BURST: Final = 500


class Sender(threading.Thread):
    """A thread that sends what is put into its queue, in order, in batches of ten; ends at None."""

    def __init__(self, sqs: Any, url: str, watch: Stopwatch) -> None:
        super().__init__(daemon=True)
        self.waiting: Queue[dict[str, str] | None] = Queue(10 * BATCH)
        self.sent = 0
        self._sqs = sqs
        self._url = url
        self._watch = watch

    def run(self) -> None:
        """Sends until told to end."""
        ended = False
        while not ended:
            entry = self.waiting.get()
            batch: list[dict[str, str]] = []
            while entry is not None:
                batch.append(entry)
                if len(batch) == BATCH:
                    break
                try:
                    entry = self.waiting.get(timeout=0.02)
                except Empty:
                    break
            ended = entry is None
            while batch:
                numbered = [{"Id": str(number), **sent} for number, sent in enumerate(batch)]
                answer = self._sqs.send_message_batch(QueueUrl=self._url, Entries=numbered)
                failed = {int(failure["Id"]) for failure in answer.get("Failed", ())}
                self.sent += len(batch) - len(failed)
                batch = [sent for number, sent in enumerate(batch) if number in failed]
            self._watch.effect()


def main() -> None:
    """Reads the topic ``argv[1]`` to its end into the queue ``argv[2]`` and prints what it took."""
    topic, queue = sys.argv[1:]
    sqs = aws("sqs", SQS, THREADS)
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    consumer: Any = Consumer(
        {
            "bootstrap.servers": KAFKA,
            "group.id": uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([topic])
    watch = Stopwatch()
    senders = [Sender(sqs, url, watch) for _ in range(THREADS)]
    for sender in senders:
        sender.start()
    request_id = uuid.uuid4().hex
    ended = 0
    while ended < PARTITIONS:
        for message in consumer.consume(_BURST, 0.1):
            if message.error() is not None:
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise SystemExit(str(message.error()))
                ended += 1
                continue
            watch.start()
            entry = entry_of(message.value(), request_id)
            if entry is not None:
                senders[hash(entry["MessageGroupId"]) % THREADS].waiting.put(entry)
    for sender in senders:
        sender.waiting.put(None)
    for sender in senders:
        sender.join()
    consumer.commit(asynchronous=False)
    consumer.close()
    print(json.dumps(watch.result(sum(sender.sent for sender in senders))))


def entry_of(value: bytes, request_id: str) -> dict[str, str] | None:
    """The queue's entry of an activity; None where it is not scorable."""
    try:
        activity: dict[str, Any] = json.loads(value)
        user, kind = activity.get("globalUserId") or "", activity["activityType"]
        name, occurred_at = activity["activityId"], int(activity["occurredAt"])
    except (ValueError, KeyError):
        return None
    if not user.strip() or kind not in _TYPES or occurred_at > time.time() * 1_000 + _FUTURE_MS:
        return None
    message = {
        "globalUserId": user,
        "activityId": name,
        "activityType": kind,
        "occurredAt": occurred_at,
        "requestId": request_id,
        "worker": _WORKER,
        "activity": activity,
    }
    return {
        "MessageBody": json.dumps(message),
        "MessageGroupId": user,
        "MessageDeduplicationId": hashlib.sha256(f"{_WORKER}\0{name}".encode()).hexdigest(),
    }


if __name__ == "__main__":
    main()
