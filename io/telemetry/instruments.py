"""From the numbers of this process to OpenTelemetry's: observable instruments, and the points of distributions."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    ScopeMetrics,
)

from ...domain import ledger, measures
from ...domain.measures import EVENTS, SECONDS, Kind, Measure
from ..breaker import open_services
from . import metrics
from .polling import Polled, values_of
from .totals import all_totals

SCOPE: Final = "fan_identity"
_IDLE_MS: Final = 60_000

Values = Iterable[tuple[tuple[str, ...], float]]
Read = Callable[[], Values]


def register(meter: Meter, queues: Mapping[str, Polled], lag: Mapping[str, Polled]) -> None:
    """Makes the instruments of everything but distributions; they are read at collection.

    Args:
        meter: whose.
        queues: depths by setting.
        lag: by worker.
    """
    began = time.time()
    reads: dict[Measure, Read] = {
        measures.RECORDS: _records,
        measures.REJECTED: lambda: _reasons(ledger.REJECTED, measures.REJECTED),
        measures.DEAD_LETTERED: lambda: _reasons(ledger.DEAD_LETTERED, measures.DEAD_LETTERED),
        measures.LAST_BATCH: _last_batches,
        measures.MESSAGE_AGE: _ages,
        measures.QUEUE_DEPTH: lambda: _polled(queues),
        measures.CONSUMER_LAG: lambda: _polled(lag),
        measures.BREAKER_OPEN: lambda: [((name,), float(is_open)) for name, is_open in open_services().items()],
        measures.START_TIME: lambda: [((), began)],
    }
    for family in (*metrics.COUNTERS, *metrics.GAUGES):
        reads[family.measure] = _cells_of(family)
    for measure, read in reads.items():
        make: Any = meter.create_observable_counter if measure.kind is Kind.COUNTER else meter.create_observable_gauge
        make(measure.name, [_callback(measure, read)], measure.unit, measure.help)


def _callback(measure: Measure, read: Read) -> Callable[[CallbackOptions], list[Observation]]:
    """What the SDK calls at collection: values of labels that are not listed are one series, ``other``."""
    names = [label.name for label in measure.labels]

    def observe(options: CallbackOptions) -> list[Observation]:
        del options
        sums: dict[tuple[str, ...], float] = {}
        for values, number in read():
            listed = measure.listed(values)
            sums[listed] = number + sums.get(listed, 0.0) if measure.kind is Kind.COUNTER else number
        return [Observation(number, dict(zip(names, values, strict=True))) for values, number in sums.items()]

    return observe


def _records() -> Values:
    # Every event of a worker that works here, also what never happened: a rate needs a number to begin with.
    for worker, totals in all_totals().items():
        counts = totals.counts.copy()
        for event in EVENTS:
            yield (worker, event), counts[event]


def _reasons(prefix: str, measure: Measure) -> Values:
    for worker, totals in all_totals().items():
        counts = totals.counts.copy()
        for reason in measure.labels[1].values:
            yield (worker, reason), 0
        for name, number in counts.items():
            if name.startswith(prefix):
                yield (worker, name.removeprefix(prefix)), number


def _last_batches() -> Values:
    return [
        ((worker,), totals.last_batch_ms / 1_000) for worker, totals in all_totals().items() if totals.last_batch_ms
    ]


def _ages() -> Values:
    now = time.time_ns() // 1_000_000
    for worker, totals in all_totals().items():
        if totals.age_ms and now - totals.last_batch_ms < _IDLE_MS:
            yield (worker,), totals.age_ms / 1_000


def _polled(numbers: Mapping[str, Polled]) -> Values:
    return [((name,), value) for name, value in values_of(numbers).items()]


def _cells_of(family: metrics.Family[metrics.Number]) -> Read:
    def read() -> Values:
        for values, cell in list(family.items()):
            number = cell.value
            if number is not None:
                yield values, number

    return read


def with_distributions(collected: MetricsData, began_ns: int) -> MetricsData:
    """What the SDK collected, and the distributions, which the SDK has no instrument for that is read at collection.

    Args:
        collected: of one resource.
        began_ns: since when they count, nanoseconds since the epoch. They are cumulative, whatever a collector prefers.
    """
    now = time.time_ns()
    found = [_metric(family, began_ns, now) for family in metrics.DISTRIBUTIONS]
    return MetricsData(
        [
            replace(one, scope_metrics=[_joined(scope, found) for scope in one.scope_metrics])
            for one in collected.resource_metrics
        ]
    )


def _joined(scope: ScopeMetrics, found: list[Metric]) -> ScopeMetrics:
    """Our scope with more metrics: of two scopes of a name the exporter would send one."""
    return replace(scope, metrics=[*scope.metrics, *found]) if scope.scope.name == SCOPE else scope


def _metric(family: metrics.Family[metrics.Distribution], began_ns: int, now_ns: int) -> Metric:
    names = [label.name for label in family.measure.labels]
    points: list[HistogramDataPoint] = []
    for values, cell in list(family.items()):
        counts, total = cell.snapshot()
        if not any(counts):
            continue
        points.append(
            HistogramDataPoint(
                attributes=dict(zip(names, values, strict=True)),
                start_time_unix_nano=began_ns,
                time_unix_nano=now_ns,
                count=sum(counts),
                sum=total,
                bucket_counts=counts,
                explicit_bounds=SECONDS,
                min=None,  # pyright: ignore[reportArgumentType] - optional in OTLP, and not kept
                max=None,  # pyright: ignore[reportArgumentType]
            )
        )
    data = Histogram(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
    return Metric(name=family.measure.name, description=family.measure.help, unit=family.measure.unit, data=data)
