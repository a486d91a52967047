"""Our worker, bounded, as ``fan-identity run WORKER`` plans and executes it, with a stopwatch at both of its ends.

The environment holds its settings. Beam and the backends are imported and connected before the clock starts, as the
peers import and connect before theirs.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from ...io.backends import Backends
from ...io.kafka_reader import KafkaReader
from ...io.registry import Kind, worker_named
from ...io.settings import load_settings
from ...io.sqs.queue import SqsQueue
from ...pipelines.runner import execute, parse_beam_flags
from ...pipelines.workers import plan
from .rounds import Stopwatch


def main() -> None:
    """Runs the worker ``argv[1]`` and prints what it took."""
    worker = worker_named(sys.argv[1])
    settings = load_settings()
    backends = Backends.of(settings, worker.name, settings.source)
    build = plan(worker, settings, backends, None, None)
    watch = Stopwatch()
    queue: Any = backends.open_queue()  # the one the pipeline's steps get, too: there is one a process
    if not isinstance(queue, SqsQueue):
        raise TypeError("this measures SQS queues")
    if worker.kind is Kind.ENQUEUE:
        reader: Any = KafkaReader
        reader.poll = _after(reader.poll, lambda found: found is not None and watch.start())
        patched: Any = queue
        patched.send = _after(queue.send, lambda _: watch.effect())
        done = "enqueued"
    else:
        patched = queue
        patched.receive = _before(queue.receive, watch.start)
        patched.delete = _after(queue.delete, lambda _: watch.effect())
        done = "scored"
    counts = execute(build, parse_beam_flags([], prism=None))
    print(json.dumps({**watch.result(counts[done]), "counts": counts}))


def _after(call: Callable[..., Any], tell: Callable[[Any], Any]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        answer = call(*arguments)
        tell(answer)
        return answer

    return timed


def _before(call: Callable[..., Any], tell: Callable[[], Any]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        tell()
        return call(*arguments)

    return timed


if __name__ == "__main__":
    main()
