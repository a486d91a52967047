"""The peer: the same work as ``fan-identity score``, as a plain Python loop without Beam.

Same decoding, filter, queue, profiles, model and SQLite batching, through the same functions and backends, written as
one would write it by hand for one process. What a pipeline costs more than this is the price of Beam.
"""

import json
import sys
import time
import uuid
from collections import Counter
from typing import Any

from ..domain.activity import MalformedRecordError, decode_activity
from ..domain.ledger import Ledger
from ..domain.messages import decode_message
from ..domain.profile import facts_of
from ..domain.records import DeadLetter, DecodedRecord, dead_letter_id
from ..domain.scorable import ScorableRules, rejection
from ..domain.scores import cache_entry, latest_item, score_item, version_of
from ..io.backends import Backends
from ..io.clock import now_ms
from ..io.files import plan_ranges, read_range
from ..io.ports import ScoringRequest, SendOutcome
from ..io.settings import Settings
from ..io.steps import queue_entry

ENQUEUE = "enqueueFromStream"
SCORE = "scoreUsers"


def enqueue_all(path: str, backends: Backends, batch_size: int) -> Counter[str]:
    """The first half: every record of a file is queued, rejected or a dead letter."""
    queue, arai, dead_letters = backends.open_queue(), backends.open_arai(), backends.open_dead_letters()
    counts: Counter[str] = Counter()
    for part in plan_ranges([path]):
        for records in read_range(part, batch_size):
            request_id = uuid.uuid4().hex
            rules = ScorableRules(now_ms())
            counts["read"] += len(records)
            kept: list[DecodedRecord] = []
            failed: list[DeadLetter] = []
            for record in records:
                try:
                    if record.body is None:
                        raise MalformedRecordError(record.error or "unreadable")
                    activity = decode_activity(record.body)
                    time_ms = activity.time_ms
                except MalformedRecordError as error:
                    name = dead_letter_id(ENQUEUE, path, record.position, record.payload)
                    failed.append(
                        DeadLetter(
                            name, ENQUEUE, "malformed", str(error), "", 1, request_id, None, path, record.position,
                            record.payload,
                        )
                    )  # fmt: skip
                    continue
                reason = rejection(activity, time_ms, rules)
                if reason is None:
                    kept.append(DecodedRecord(record, activity, time_ms))
                else:
                    counts[f"rejected.{reason}"] += 1
            arai.observe([(r.activity.global_user_id or "", facts_of(r.activity, r.time_ms)) for r in kept])
            outcomes = queue.send([queue_entry(record, request_id, ENQUEUE) for record in kept])
            sent = outcomes.count(SendOutcome.SENT)
            counts["enqueued"] += sent
            counts["deduplicated"] += len(outcomes) - sent
            if failed:
                dead_letters.write(failed)
                counts["dead_lettered.malformed"] += len(failed)
    return counts


def score_all(backends: Backends, batch_size: int) -> Counter[str]:
    """The second half: every message is scored, persisted and acknowledged."""
    queue, arai, model = backends.open_queue(), backends.open_arai(), backends.open_model()
    table, cache = backends.open_table(), backends.open_cache()
    counts: Counter[str] = Counter()
    while received := queue.receive(batch_size):
        messages = [decode_message(message.body) for message in received]
        known: Any = arai.fetch(messages)
        requests = [ScoringRequest(message, arai) for message, arai in zip(messages, known, strict=True)]
        scores: Any = model.score(requests)  # the embedded parts never fail
        now = now_ms()
        items = [score_item(message, score, SCORE, now) for message, score in zip(messages, scores, strict=True)]
        newest: dict[str, tuple[str, int]] = {}
        for index, message in enumerate(messages):
            version = version_of(message)
            if message.global_user_id not in newest or version > newest[message.global_user_id][0]:
                newest[message.global_user_id] = (version, index)
        table.batch_put(items)
        table.put_if_newer([(version, latest_item(items[index])) for version, index in newest.values()])
        if cache is not None:
            entries = [
                cache_entry(items[index], version, messages[index].occurred_at) for version, index in newest.values()
            ]
            cache.put_if_newer([(entry.key, entry.version, entry.value) for entry in entries])
        queue.delete([message.receipt for message in received])
        counts["scored"] += len(items)
    return counts


def main() -> None:
    """Scores ``argv[1]`` into the store ``argv[2]`` and prints counts and seconds of the work as JSON."""
    path, store = sys.argv[1:]
    settings = Settings(store=store)
    backends = Backends.of(settings)
    backends.open_sqlite_queue().depth()  # the store is made before the clock starts, as in the other commands
    began = time.perf_counter()
    counts = enqueue_all(path, backends, settings.batch_size)
    enqueued = time.perf_counter()
    counts += score_all(backends, settings.batch_size)
    ended = time.perf_counter()
    ledger = Ledger.of(counts, waiting_before=0, waiting_after=backends.open_queue().depth())
    print(
        json.dumps(
            {
                "read": ledger.read,
                "scored": ledger.scored,
                "unaccounted": ledger.unaccounted,
                "seconds": ended - began,
                "enqueueSeconds": enqueued - began,
                "scoreSeconds": ended - enqueued,
            }
        )
    )


if __name__ == "__main__":
    main()
