"""From a worker's name and settings to its pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam

from ..io.backends import QUEUES, STREAMS, Backends, milliseconds, scheme_of
from ..io.errors import UsageError
from ..io.file_ranges import FileFormat, detect_format, local_path
from ..io.files import LineTail, plan_ranges
from ..io.registry import Kind, Worker
from ..io.settings import Settings
from ..transforms.batches import BatchTransform
from ..transforms.enqueue import OpenMessages
from ..transforms.sources import IN_PROCESS, DrainQueue, FollowFile, Pace, ReadActivityFiles, ReadFromQueue
from ..transforms.streams import ReadFromStream, ReadStreamRange
from . import enqueue, rescore, score, verify

STREAM_HORIZON = timedelta(days=7)
"""A stream rejects older activities where no horizon is set."""

Build = Callable[[beam.Pipeline], Any]


@dataclass
class _Opened(BatchTransform):
    """Records out of a queue's messages."""

    messages: BatchTransform

    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | "Receive" >> self.messages | "Open messages" >> OpenMessages()


def plan(
    worker: Worker, settings: Settings, backends: Backends, file_format: FileFormat | None, pace: Pace | None
) -> Build:
    """A worker's pipeline, after checking that all it needs is there.

    Args:
        worker: which.
        settings: batch size, horizon, internal accounts.
        backends: of the worker, its source among them.
        file_format: of a source that is a file, where its name does not tell.
        pace: of a streaming run; None for a bounded one.

    Raises:
        UsageError: a setting does not fit the worker, or something it names does not exist.
        BackendUnavailableError: a backend is out of reach.
    """
    if pace is IN_PROCESS and settings.splits > 1:
        raise UsageError("setting splits: the DirectRunner streams with one reader; leave it at 1, or choose a cluster")
    check(worker, backends)
    match worker.kind:
        case Kind.ENQUEUE:
            rules = enqueue.RulesOfNow(horizon_ms(settings, streaming=pace is not None), settings.internal_accounts)
            source = _activities(worker, settings, backends, file_format, pace)
            return lambda pipeline: enqueue.build(pipeline, worker.name, source, rules, backends)
        case Kind.SCORE if scheme_of(backends.source or "") in STREAMS:
            changes = _stream(settings, backends, pace)
            return lambda pipeline: score.build_from_changes(pipeline, worker.name, changes, backends)
        case Kind.SCORE:
            build = score.build
        case Kind.RESCORE:
            build = rescore.build
        case Kind.VERIFY:
            build = verify.build
        case Kind.LIVENESS:
            raise UsageError(f"{worker.name} is no pipeline; run it with: fan-identity run {worker.name}")
    messages = _messages(settings, backends, pace)
    return lambda pipeline: build(pipeline, worker.name, messages, backends)


def horizon_ms(settings: Settings, *, streaming: bool) -> int | None:
    """How far back an activity may lie; None for no limit."""
    horizon = settings.horizon or (STREAM_HORIZON if streaming else None)
    return None if horizon is None else milliseconds(horizon)


def check(worker: Worker, backends: Backends) -> None:
    """Connects to what a worker uses, so that a wrong address is said before anything runs.

    Raises:
        UsageError: a setting does not fit the worker, or something it names does not exist.
        BackendUnavailableError: a backend is out of reach.
    """
    scheme = scheme_of(backends.source or "")
    if worker.kind is not Kind.ENQUEUE and backends.source is not None:
        changes = worker.kind is Kind.SCORE and scheme in ("kinesis", "dynamodb-streams")
        if not changes:
            raise UsageError(
                f"--source: {worker.name} reads {worker.queue_name}; name that with --queue or --store"
                + (" (or ARAI changes: dynamodb-streams://… or kinesis://…)" if worker.kind is Kind.SCORE else "")
            )
    backends.open_model()
    backends.check()


def _activities(
    worker: Worker, settings: Settings, backends: Backends, file_format: FileFormat | None, pace: Pace | None
) -> BatchTransform:
    source = backends.source
    if source is None:
        raise UsageError(
            f"{worker.name} needs --source, such as --source kafka://host:9092/topic, kinesis://stream "
            "or file:///folder/activities.jsonl"
        )
    scheme = scheme_of(source)
    if scheme in STREAMS:
        return _stream(settings, backends, pace)
    if scheme in QUEUES:
        return _Opened(_messages(settings, backends, pace))
    if scheme not in ("", "file"):
        known = ", ".join(f"{name}://" for name in (*STREAMS, *QUEUES, "file"))
        raise UsageError(f"--source: {scheme}:// is not supported here; use one of {known}")
    path = str(Path(local_path(source)).resolve())
    if pace is None:
        return ReadActivityFiles(worker.name, backends, plan_ranges([path], file_format), settings.batch_size)
    followed = file_format or detect_format(path)
    LineTail(path, followed, "").close()  # says at once where a format cannot be followed
    return FollowFile(path, followed, worker.name, backends, settings.batch_size, pace)


def _stream(settings: Settings, backends: Backends, pace: Pace | None) -> BatchTransform:
    if pace is None:
        return ReadStreamRange(backends, settings.batch_size, settings.splits)
    return ReadFromStream(backends, settings.batch_size, settings.splits, pace)


def _messages(settings: Settings, backends: Backends, pace: Pace | None) -> BatchTransform:
    if pace is None:
        if scheme_of(backends.source_queue) == "pubsub":
            raise UsageError("Pub/Sub does not say when a subscription is empty: add --streaming")
        return DrainQueue(backends, settings.batch_size)
    return ReadFromQueue(backends, settings.batch_size, settings.splits, pace)
