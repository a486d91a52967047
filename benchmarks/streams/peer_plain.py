"""Peer B: the scoring worker as a plain loop over the same clients as ours, without Beam.

Same receiving, profiles, model calls in flight, writes and batches, written as one would by hand for one process. What
our worker costs more than this is the price of Beam.
"""

import json
import sys
import time
from typing import Any

from ...domain.messages import decode_message
from ...domain.scores import cache_entry, latest_item, score_item, version_of
from ...io.backends import Backends
from ...io.clock import now_ms
from ...io.ports import ScoringRequest
from ...io.settings import load_settings
from .rounds import Stopwatch

WORKER = "scoreUsers"
_REST_SECONDS = 0.005


def main() -> None:
    """Scores the ``argv[1]`` messages that are in the queue of the settings and prints what it took."""
    total = int(sys.argv[1])
    settings = load_settings()
    backends = Backends.of(settings, WORKER)
    backends.check()
    queue, arai, model = backends.open_queue(), backends.open_arai(), backends.open_model()
    table, cache = backends.open_table(), backends.open_cache()
    if cache is None:
        raise ValueError("scoreUsers writes the cache")
    watch = Stopwatch()
    watch.start()
    done = 0
    while done < total:
        received = queue.receive(settings.batch_size)
        if not received:
            time.sleep(_REST_SECONDS)
            continue
        messages = [decode_message(message.body) for message in received]
        known: Any = arai.fetch(messages)  # failures would raise below: here there are none
        requests = [ScoringRequest(message, profile) for message, profile in zip(messages, known, strict=True)]
        scores: Any = model.score(requests)
        now = now_ms()
        items = [score_item(message, score, WORKER, now) for message, score in zip(messages, scores, strict=True)]
        newest: dict[str, tuple[str, int]] = {}
        for index, message in enumerate(messages):
            version = version_of(message)
            if message.global_user_id not in newest or version > newest[message.global_user_id][0]:
                newest[message.global_user_id] = (version, index)
        table.batch_put(items)
        table.put_if_newer([(version, latest_item(items[index])) for version, index in newest.values()])
        entries = [
            cache_entry(items[index], version, messages[index].occurred_at) for version, index in newest.values()
        ]
        cache.put_if_newer([(entry.key, entry.version, entry.value) for entry in entries])
        queue.delete([message.receipt for message in received])
        watch.effect()
        done += len(received)
    print(json.dumps(watch.result(done)))


if __name__ == "__main__":
    main()
