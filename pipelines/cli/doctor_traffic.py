"""What ``fan-identity doctor`` says of traffic: what waits, how far workers are behind, who runs, who is off."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ...domain.activity import format_time_ms
from ...io.backends import TABLES, Backends, open_flags, open_operations, operations_address, scheme_of
from ...io.clock import now_ms
from ...io.errors import FanIdentityError
from ...io.ports import PositionStore
from ...io.probes import STORES
from ...io.registry import WORKERS, Kind
from ...io.time_limits import within
from ...io.worker_reports import WorkerReport, read_reports
from ...serving.settings import ServingSettings
from .doctor_checks import SLOW_SECONDS, Found, is_missing_store, tried

_BEHIND_MS: Final = 60_000
"""What is older than a minute is worth a note."""


def of_queues(settings: ServingSettings) -> list[Found]:
    """What waits in each queue."""
    from ...io.queue_contents import QueueContents, queue_contents  # noqa: PLC0415 - where there are queues

    section, seconds = "queues", settings.probe_deadline.total_seconds()

    def shown(state: QueueContents) -> Found:
        data = {name: value for name, value in msgspec.to_builtins(state).items() if value is not None}
        if state.waiting is None:
            return Found(section, state.name, "ok", "does not say how much waits", data)
        parts = [f"{state.waiting:,} waiting"]
        parts += [f"{state.in_flight:,} in flight"] if state.in_flight is not None else []
        parts += [f"{state.delayed:,} delayed"] if state.delayed else []
        parts += [f"the oldest for {_ago(state.oldest_ms)}"] if state.oldest_ms is not None else []
        late = state.oldest_ms is not None and state.oldest_ms > _BEHIND_MS
        return Found(section, state.name, "warning" if late else "ok", ", ".join(parts), data)

    found: list[Found] = []
    for setting, text in _queue_addresses(settings):
        found += tried(
            section,
            setting,
            seconds + 1,
            lambda text=text, setting=setting: [
                shown(state) for state in queue_contents(text, setting.replace("_", "-"), seconds)
            ],
        )
    return found


def _queue_addresses(settings: ServingSettings) -> Iterator[tuple[str, str]]:
    for setting in ("store", *(name for name in STORES if name.endswith("queue"))):
        text: str | None = getattr(settings, setting)
        if text is not None and not is_missing_store(text):
            yield setting, text


def of_source(settings: ServingSettings) -> list[Found]:
    """How far workers are behind the source, and what they committed."""
    from ...io.lag import WorkerLag, can_tell, lags_of  # noqa: PLC0415 - brings librdkafka and boto3

    source = settings.source
    if source is None or not can_tell(source):
        return []
    named = settings.app_name if settings.app_name in WORKERS else None
    workers = [named] if named else [one.name for one in WORKERS.values() if one.kind in (Kind.ENQUEUE, Kind.SCORE)]

    def shown(lag: WorkerLag) -> Found:
        data: dict[str, Any] = {
            "worker": lag.worker,
            "records": lag.records,
            "behindMs": lag.behind_ms,
            "partitions": msgspec.to_builtins(lag.partitions),
        }
        problems = [f"{one.partition}: {one.problem}" for one in lag.partitions if one.problem]
        parts: list[str] = []
        if lag.records is not None:
            parts.append(f"{lag.records:,} records behind")
        if lag.behind_ms is not None:
            parts.append(f"{_ago(lag.behind_ms)} behind")
        places = ", ".join(f"{one.partition}@{one.position}" for one in lag.partitions[:8] if one.position)
        parts.append(f"committed {places}" if places else "nothing committed yet")
        late = bool(problems) or (lag.behind_ms or 0) > _BEHIND_MS
        return Found("sources", lag.worker, "warning" if late else "ok", "; ".join((*parts, *problems)), data)

    positions = _positions(settings)
    seconds = settings.probe_deadline.total_seconds()
    return tried(
        "sources", "source", SLOW_SECONDS, lambda: [shown(lag) for lag in lags_of(source, workers, positions, seconds)]
    )


def _positions(settings: ServingSettings) -> PositionStore | None:
    """Where workers' positions are, as ``Backends.of`` finds it; None where no setting names a place."""
    place = settings.positions or settings.store
    if place is None:
        others = (settings.queue, settings.dead_letters)
        place = next((text for text in others if text is not None and scheme_of(text) in TABLES), None)
    if place is None or is_missing_store(place):
        return None
    nowhere = Backends(worker="", queue="", table="", cache=None, dead_letters="", arai="", positions=place)
    return nowhere.open_positions()


def of_workers(settings: ServingSettings) -> tuple[list[Found], list[str]]:
    """The processes that run now, by what they report; and their runners."""
    section, seconds = "workers", settings.probe_deadline.total_seconds()
    try:
        address = operations_address(settings)
        if is_missing_store(address):
            return [Found(section, "reports", "warning", "nobody reported yet")], []
        reports = within(seconds + 2, lambda: read_reports(open_operations(address)), "the operations table")
    except FanIdentityError as error:
        return [Found(section, "reports", "warning", f"nobody knows who runs: {error}")], []
    now = now_ms()
    live = [one for one in reports if one.is_alive(now)]
    found = [_of_report(one, now) for one in live]
    if not live:
        last = max((one.updated_at for one in reports), default=None)
        heard = (
            "none reported in the past day" if last is None else f"none is alive; last heard of {_ago(now - last)} ago"
        )
        found = [Found(section, "reports", "warning", heard)]
    return found, [one.runner for one in live if one.runner]


def _of_report(report: WorkerReport, now: int) -> Found:
    parts = [
        f"{report.runner or 'some runner'}, version {report.code_version}, since {format_time_ms(report.started_at)}"
    ]
    if report.last_batch_at:
        parts.append(f"last batch {_ago(now - report.last_batch_at)} ago")
    if report.age_ms:
        parts.append(f"its oldest message waited {_ago(report.age_ms)}")
    if report.lag is not None:
        parts.append(f"{report.lag:,} records behind")
    if report.failed_batches:
        parts.append(f"{report.failed_batches:,} batches failed")
    return Found("workers", report.worker, "ok", "; ".join(parts), msgspec.to_builtins(report))


def of_flags(settings: ServingSettings) -> list[Found]:
    """Which workers their flags switch off."""
    if settings.flags is None:
        return []

    def look() -> list[Found]:
        flags = open_flags(settings.flags, settings.flags_default, settings.flags_folder)
        states = {name: flags.is_enabled(name) for name in WORKERS}
        off = [name for name, enabled in states.items() if not enabled]
        text = f"switched off: {', '.join(off)}" if off else "every worker is on"
        return [Found("flags", "workers", "warning" if off else "ok", text, {"enabled": states})]

    return tried("flags", "workers", settings.probe_deadline.total_seconds() + 1, look)


def _ago(milliseconds: int) -> str:
    """A length of time for people.

    >>> [_ago(ms) for ms in (40, 12_000, 150_000, 7_500_000)]
    ['40 ms', '12 s', '2 min', '2.1 h']
    """
    milliseconds = max(milliseconds, 0)
    if milliseconds < 1_000:  # noqa: PLR2004
        return f"{milliseconds} ms"
    if milliseconds < 120_000:  # noqa: PLR2004
        return f"{milliseconds // 1_000} s"
    if milliseconds < 7_200_000:  # noqa: PLR2004
        return f"{milliseconds // 60_000} min"
    return f"{milliseconds / 3_600_000:.1f} h"
