"""Every metric there is: name, kind, unit, labels, and the closed list of each label's values.

A label's value that is not in its list is told as ``other``. So nothing that came with a record or a request can become
a label: the number of series is bounded, and no user's data is in one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Final

OTHER: Final = "other"
"""Stands for every value that is not listed."""

WORKERS: Final = (
    "enqueueFromStream",
    "enqueueFromPurchaseStream",
    "enqueueFromVfStream",
    "enqueueFromSQJourneyStream",
    "enqueueFromDemandStream",
    "scoreUsers",
    "stagingScoreUsers",
    "processRescoreEvents",
    "handleEvent",
    "handleUserEvent",
    "checkLiveness",
    "startClusterImport",
    "startBotOrNotImport",
)

EVENTS: Final = (
    "read",
    "received",
    "enqueued",
    "deduplicated",
    "scored",
    "stored",
    "stale",
    "returned",
    "requests",
    "skipped",
    "evicted_traces",
)
"""What becomes of records, by the counters of the steps."""

REJECTIONS: Final = (
    "unknown_type",
    "blank_user",
    "too_old",
    "in_future",
    "internal_account",
    "flagged_off",
    "other_change",
)
"""Those of ``domain.scorable``, and what the steps reject besides."""

_OUTAGES: Final = tuple(
    f"{service}_{what}"
    for service, what in product(("model", "accounts", "identity"), ("unavailable", "invalid", "refused", "error"))
)
DEAD_LETTERS: Final = (
    "malformed",
    "unreadable",
    "unknown_event",
    "switched_off",
    "forged",
    "out_of_time",
    "too_many_receives",
    "too_large",
    "unsendable",
    "refused",
    "unsupported",
    "no_activity",
    "arai_missing",
    "arai_invalid",
    *_OUTAGES,
)

QUEUES: Final = ("queue", "on_demand_queue", "staging_queue", "rescore_queue", "identity_queue", "source")
"""By the setting that names them."""

TABLES: Final = (
    "store",
    "table",
    "staging_table",
    "verification_table",
    "account_fanscore_table",
    "demand_table",
    "dead_letters",
    "arai",
    "positions",
    "operations",
    "outbox",
)
"""By the setting that names them."""

SERVICES: Final = (
    "model",
    "accounts",
    "identity",
    "arm",
    "account_fanscore",
    "account_info",
    "campaigns",
    "demand",
    "eligibility",
    "event_details",
    "fan_identity",
    "identity_checks",
    "lnaa",
    "phone_scores",
    "verification",
)
"""Called over HTTP, or asked while a request waits."""

PARTS: Final = tuple(
    dict.fromkeys(
        (
            *TABLES,
            *QUEUES,
            "cache",
            "model",
            "staging_model",
            "accounts",
            "identity",
            "flags",
            "events",
            "account_info",
            "campaigns",
            "eligibility",
            "event_details",
            "identity_checks",
            "lnaa",
            "phone_scores",
            "token_jwks",
        )
    )
)
"""Probed by checkLiveness, by setting."""

OPERATIONS: Final = ("arm", "arm_many", "graphql", "pages", "console", "health")
"""What the API is asked for."""

CALL_OUTCOMES: Final = ("ok", "refused", "transient", "timeout", "not_called")
REQUEST_OUTCOMES: Final = ("ok", "client_error", "server_error", "limited")

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of every histogram, seconds."""


class Kind(Enum):
    """How a metric's numbers behave."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Label:
    """A label and the values it can have, besides ``other``."""

    name: str
    values: tuple[str, ...]

    def listed(self, value: str) -> str:
        """The value where it is listed, else ``other``.

        >>> Label("kind", ("read", "write")).listed("'; DROP TABLE fans")
        'other'
        """
        return value if value in self.values else OTHER


@dataclass(frozen=True)
class Measure:
    """A metric.

    Attributes:
        name: as OpenTelemetry has it.
        kind: how its numbers behave.
        unit: UCUM: ``s``, or ``{record}`` for what is counted.
        help: what it tells, one line.
        labels: in the order their values are given.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[Label, ...] = ()

    def listed(self, values: Sequence[str]) -> tuple[str, ...]:
        """The labels' values with what is not listed replaced.

        Raises:
            ValueError: not as many values as labels.
        """
        return tuple(label.listed(value) for label, value in zip(self.labels, values, strict=True))

    @property
    def prometheus_name(self) -> str:
        """Its name at ``/metrics``; a histogram's series have ``_bucket``, ``_sum`` and ``_count`` behind it.

        >>> BATCH_DURATION.prometheus_name
        'fan_identity_batch_duration_seconds'
        """
        seconds = "_seconds" if self.unit == "s" else ""
        total = "_total" if self.kind is Kind.COUNTER else ""
        return f"{self.name.replace('.', '_')}{seconds}{total}"


_WORKER: Final = Label("worker", WORKERS)
_SERVICE: Final = Label("service", SERVICES)
_TABLE: Final = Label("table", TABLES)
_QUEUE: Final = Label("queue", QUEUES)
_PART: Final = Label("part", PARTS)

RECORDS: Final = Measure(
    "fan_identity.records",
    Kind.COUNTER,
    "{record}",
    "Records by what became of them",
    (_WORKER, Label("event", EVENTS)),
)
REJECTED: Final = Measure(
    "fan_identity.rejections",
    Kind.COUNTER,
    "{record}",
    "Records that are not to be scored, by reason",
    (_WORKER, Label("reason", REJECTIONS)),
)
DEAD_LETTERED: Final = Measure(
    "fan_identity.dead_letters",
    Kind.COUNTER,
    "{record}",
    "Records given up on, by reason",
    (_WORKER, Label("reason", DEAD_LETTERS)),
)
BATCH_DURATION: Final = Measure(
    "fan_identity.batch.duration",
    Kind.HISTOGRAM,
    "s",
    "From reading a batch to its last effect, or to its failure",
    (_WORKER, Label("outcome", ("ok", "failed"))),
)
LAST_BATCH: Final = Measure(
    "fan_identity.last_batch.time",
    Kind.GAUGE,
    "s",
    "When the last batch was finished, Unix time",
    (_WORKER,),
)
MESSAGE_AGE: Final = Measure(
    "fan_identity.message.age",
    Kind.GAUGE,
    "s",
    "How long the oldest message of the last batch had waited, while batches come",
    (_WORKER,),
)
QUEUE_DEPTH: Final = Measure(
    "fan_identity.queue.depth",
    Kind.GAUGE,
    "{message}",
    "Messages that wait or are in flight",
    (_QUEUE,),
)
CONSUMER_LAG: Final = Measure(
    "fan_identity.consumer.lag",
    Kind.GAUGE,
    "{record}",
    "Records of the stream behind the committed positions, where the stream can tell",
    (_WORKER,),
)
CAPACITY: Final = Measure(
    "fan_identity.table.capacity",
    Kind.COUNTER,
    "{unit}",
    "DynamoDB capacity units consumed",
    (_TABLE, Label("kind", ("read", "write"))),
)
THROTTLED: Final = Measure(
    "fan_identity.table.throttled",
    Kind.COUNTER,
    "{call}",
    "Calls DynamoDB throttled after boto3's own retries",
    (_TABLE,),
)
CALL_DURATION: Final = Measure(
    "fan_identity.call.duration",
    Kind.HISTOGRAM,
    "s",
    "Calls to services with their retries, by what came of them",
    (_SERVICE, Label("outcome", CALL_OUTCOMES)),
)
CALL_RETRIES: Final = Measure(
    "fan_identity.call.retries", Kind.COUNTER, "{attempt}", "Attempts of calls after their first", (_SERVICE,)
)
BREAKER_OPEN: Final = Measure(
    "fan_identity.breaker.open", Kind.GAUGE, "", "1 while the service is taken to be down and not called", (_SERVICE,)
)
REQUEST_DURATION: Final = Measure(
    "fan_identity.request.duration",
    Kind.HISTOGRAM,
    "s",
    "Requests answered, by operation and outcome",
    (Label("operation", OPERATIONS), Label("outcome", REQUEST_OUTCOMES)),
)
CACHE_LOOKUPS: Final = Measure(
    "fan_identity.cache.lookups",
    Kind.COUNTER,
    "{lookup}",
    "Lookups in a cache, by what it held",
    (Label("cache", ("arm", "event_details")), Label("outcome", ("hit", "miss", "away"))),
)
PROBE_UP: Final = Measure(
    "fan_identity.probe.up", Kind.GAUGE, "", "1 where the part answered checkLiveness last time", (_PART,)
)
PROBE_DURATION: Final = Measure(
    "fan_identity.probe.duration", Kind.GAUGE, "s", "How long the part took to answer last time", (_PART,)
)
START_TIME: Final = Measure(
    "fan_identity.process.start_time", Kind.GAUGE, "s", "When telemetry of the process began, Unix time"
)
EXPORT_FAILURES: Final = Measure(
    "fan_identity.telemetry.export_failures",
    Kind.COUNTER,
    "{export}",
    "Exports over OTLP that failed; what they held is dropped (traces) or told by the next one (metrics)",
    (Label("signal", ("metrics", "traces")),),
)
MISSED_FLUSHES: Final = Measure(
    "fan_identity.telemetry.missed_flushes",
    Kind.COUNTER,
    "{flush}",
    "Flushes of a Lambda that a slow collector kept from their end, or that were left out for a while after one",
    (Label("outcome", ("late", "left_out")),),
)

MEASURES: Final = (
    RECORDS,
    REJECTED,
    DEAD_LETTERED,
    BATCH_DURATION,
    LAST_BATCH,
    MESSAGE_AGE,
    QUEUE_DEPTH,
    CONSUMER_LAG,
    CAPACITY,
    THROTTLED,
    CALL_DURATION,
    CALL_RETRIES,
    BREAKER_OPEN,
    REQUEST_DURATION,
    CACHE_LOOKUPS,
    PROBE_UP,
    PROBE_DURATION,
    START_TIME,
    EXPORT_FAILURES,
    MISSED_FLUSHES,
)
"""All of them."""
