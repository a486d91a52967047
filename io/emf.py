"""CloudWatch's embedded metric format: on Lambda, one line an invocation on standard output becomes metrics.

CloudWatch reads them out of the function's log, so nobody is called while a request waits. Names and the one dimension
come from closed lists: nothing that came with a request can become one, and the number of metrics is bounded.

Source: CloudWatch user guide, "Specification: Embedded metric format".
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from ..domain.measures import DEAD_LETTERS, EVENTS, OTHER, REJECTIONS

NAMESPACE: Final = "fan-identity"

ASKED_ENV: Final = "FAN_IDENTITY_EMF"
"""``on`` writes the line elsewhere than on Lambda too, ``off`` nowhere."""

SERVED: Final = ("authorized", "denied", "fields", "failed_fields")
"""What becomes of what the workers that answer AppSync are asked."""

PROBED: Final = ("parts_up", "parts_down", "told", "skipped")
"""What checkLiveness found and told."""

_REASONS: Final = {"rejected": frozenset(REJECTIONS), "dead_lettered": frozenset(DEAD_LETTERS)}
_OUTCOMES: Final = frozenset({*EVENTS, *SERVED, *PROBED})
_INVOCATION: Final = {"invocations": "Count", "errors": "Count", "duration": "Milliseconds"}


@contextmanager
def invocation(worker: str, request_id: str = "") -> Generator[Counter[str]]:
    """Tells CloudWatch of one invocation when the block ends, where this is Lambda or it was asked for.

    Args:
        worker: the dimension; a name of the registry or of ``serving.resolver_handlers``.
        request_id: of the invocation, a property of the line beside the log's.

    Yields:
        What became of the records, by the counters' names, for the block to add to.
    """
    counts: Counter[str] = Counter()
    began, failed = time.perf_counter(), True
    try:
        yield counts
        failed = False
    finally:
        if is_on(os.environ):
            emit(worker, time.perf_counter() - began, counts, failed=failed, request_id=request_id)


def is_on(environment: Mapping[str, str]) -> bool:
    """Whether lines are written: on Lambda, unless ``FAN_IDENTITY_EMF`` says otherwise."""
    asked = environment.get(ASKED_ENV, "").lower()
    return asked == "on" or (asked != "off" and "AWS_LAMBDA_FUNCTION_NAME" in environment)


def emit(worker: str, seconds: float, counts: Mapping[str, int], *, failed: bool, request_id: str = "") -> None:
    """Writes the line.

    Args:
        worker: the dimension.
        seconds: the invocation took.
        counts: of records by outcome; names that are not known count as ``other``.
        failed: whether it raised, so that Lambda counts an error and invokes again.
        request_id: a property.
    """
    line = embedded(worker, seconds, counts, failed=failed, request_id=request_id, now_ms=time.time_ns() // 1_000_000)
    with suppress(OSError):  # who reads the log is gone; the answer is not to suffer
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stdout.flush()


def embedded(
    worker: str, seconds: float, counts: Mapping[str, int], *, failed: bool, request_id: str, now_ms: int
) -> dict[str, Any]:
    """The line as a value; arguments as of ``emit``, and the time, epoch milliseconds."""
    outcomes: Counter[str] = Counter()
    for name, number in counts.items():
        if number:
            outcomes[_known(name)] += number
    metrics = [{"Name": name, "Unit": unit} for name, unit in _INVOCATION.items()]
    metrics += [{"Name": name, "Unit": "Count"} for name in sorted(outcomes)]
    directive = {"Namespace": NAMESPACE, "Dimensions": [["worker"]], "Metrics": metrics}
    return {
        "_aws": {"Timestamp": now_ms, "CloudWatchMetrics": [directive]},
        "worker": worker,
        **({"requestId": request_id} if request_id else {}),
        "invocations": 1,
        "errors": int(failed),
        "duration": round(1_000 * seconds, 3),
        **outcomes,
    }


def _known(name: str) -> str:
    kind, _, reason = name.partition(".")
    if kind in _REASONS and reason:
        return name if reason in _REASONS[kind] else f"{kind}.{OTHER}"
    return name if name in _OUTCOMES else OTHER
