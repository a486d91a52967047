"""The Lambda entry: ``fan_identity.serving.lambda_handler.handler`` answers an AWS event for the worker of APP_NAME.

The reference's middleware, in its order, is the list ``MIDDLEWARE``. Nothing here imports Beam.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..domain.activity import MalformedRecordError
from ..domain.aws_events import EventKind, InputRecord, transform_input
from ..domain.envelopes import opened
from ..domain.records import Batch, RawRecord
from ..domain.scorable import ScorableRules
from ..io import consuming, emf, persisting, steps
from ..io.backends import Backends, milliseconds
from ..io.clock import now_ms
from ..io.errors import UsageError
from ..io.event_consumers import EventStores
from ..io.fan_verifications import add_verifications
from ..io.logs import configure_logging
from ..io.ports import ReceivedMessage
from ..io.registry import Kind, Worker, worker_named
from ..io.rescoring import Rescoring
from ..io.settings import Settings, load_settings
from ..io.telemetry import start
from ..io.telemetry.batch_traces import Phase
from ..io.telemetry.tracing import NOTHING
from .invocation import Invocation
from .invocations import invocation_id
from .resolver_handlers import handler_named

_log = logging.getLogger("fan_identity.lambda")


def correlation(invocation: Invocation) -> None:
    """Names the request: by Lambda's own id where there is one."""
    invocation.request_id = invocation_id(invocation.context)
    configure_logging(invocation.settings.log_level, invocation.worker.name, invocation.request_id)


def tracing(invocation: Invocation) -> None:
    """Turns telemetry on, where the environment asks for it. Spans begin once the records tell whether they do."""
    start.start(invocation.worker.name, invocation.settings)


def transform(invocation: Invocation) -> None:
    """Takes the event apart.

    Raises:
        UsageError: it is no event of AWS's.
    """
    try:
        invocation.kind, invocation.records = transform_input(invocation.event)
    except MalformedRecordError as error:
        raise UsageError(f"the event cannot be read: {error}") from None
    invocation.open_trace()


def set_record_correlations(invocation: Invocation) -> None:
    """Makes one batch a source of the records, all under the request's id."""
    by_source: dict[str, list[InputRecord]] = {}
    for record in invocation.records:
        by_source.setdefault(record.source, []).append(record)
    invocation.batches = [
        Batch(
            invocation.request_id,
            source,
            records,
            receipts=tuple(record.message_id for record in records if record.message_id),
            worker=invocation.worker.name,
            began_ns=invocation.began_ns,
        )
        for source, records in by_source.items()
    ]


def services(invocation: Invocation) -> None:
    """Opens the worker's backends and asks whether it is switched on."""
    invocation.backends = Backends.of(invocation.settings, invocation.worker.name)
    flags = invocation.backends.open_flags()
    flags.look()  # Lambda may have frozen this process since the last look
    invocation.skipped = not flags.is_enabled(invocation.worker.name)
    if invocation.skipped:
        invocation.count("skipped", 1)


def handle(invocation: Invocation) -> None:
    """The business logic: the same steps as in the streaming pipeline.

    Raises:
        UsageError: the worker does not take this kind of event.
        BackendUnavailableError: a backend is out of reach: Lambda invokes again.
    """
    backends = invocation.backends
    if backends is None or invocation.skipped:
        return
    run = {
        Kind.ENQUEUE: _enqueue,
        Kind.SCORE: _score_changes if invocation.kind in _CHANGES else _score,
        Kind.RESCORE: _rescore,
        Kind.VERIFY: _verify,
    }[invocation.worker.kind]
    if invocation.worker.kind in (Kind.RESCORE, Kind.SCORE) and invocation.kind in (
        EventKind.KAFKA,
        EventKind.EVENTBRIDGE,
    ):
        raise UsageError(f"{invocation.worker.name} does not take events of {invocation.kind.value}")
    for batch in invocation.batches:
        done = run(invocation, backends, batch)
        steps.write_dead_letters(done, backends.open_dead_letters(), invocation.count)
        invocation.letters += done.dead_letters
        invocation.returned += done.returned
    invocation.count("returned", len(invocation.returned))


_CHANGES: Final = (EventKind.DYNAMODB, EventKind.KINESIS)


def result(invocation: Invocation) -> None:
    """Answers in the shape AWS expects of the event's kind. A queue keeps all that was skipped, where it reads this."""
    skipped = {"skipped": True} if invocation.skipped else {}
    if invocation.kind is EventKind.SQS:
        kept = [one.receipt for one in invocation.returned]
        if skipped:
            kept = [record.message_id for record in invocation.records]
        invocation.answer = {"batchItemFailures": [{"itemIdentifier": receipt} for receipt in kept], **skipped}
    elif skipped:
        invocation.answer = skipped
    else:
        invocation.answer = {
            "correlation": {"requestId": invocation.request_id},
            "data": dict(sorted(invocation.counts.items())),
        }
    _log.info("invocation ended", extra={"counts": dict(invocation.counts)})


MIDDLEWARE: Final[tuple[Callable[[Invocation], None], ...]] = (
    correlation,
    tracing,
    transform,
    set_record_correlations,
    services,
    handle,
    result,
)

_PHASES: Final = {handle: Phase.LOGIC, result: Phase.RESULT}
"""The parts of an invocation's trace; transforming the input is one before there is a trace."""


def handler(event: Mapping[str, Any], context: Any = None) -> dict[str, Any]:
    """Answers an event with the worker that the environment variable APP_NAME names.

    Raises:
        UsageError: APP_NAME or another setting does not fit, or the event cannot be read.
        BackendUnavailableError: a backend is out of reach: Lambda invokes again.
    """
    settings = load_settings()
    if settings.app_name is None:
        raise UsageError("APP_NAME names no worker; set it to one of the reference's, such as scoreUsers")
    resolver = handler_named(settings.app_name)  # serving.lambda_entry finds these with less to import
    if resolver is not None:
        return resolver(event, context)
    return answer(event, context, worker_named(settings.app_name), settings)


def answer(event: Mapping[str, Any], context: Any, worker: Worker, settings: Settings) -> dict[str, Any]:
    """Answers an event with a worker. Raises what ``handler`` raises."""
    invocation = Invocation(event, context, worker, settings)
    with emf.invocation(worker.name, getattr(context, "aws_request_id", "")) as told, invocation:
        try:
            for step in MIDDLEWARE:
                with invocation.part(_PHASES[step]) if step in _PHASES else NOTHING:
                    step(invocation)
        finally:
            told.update(invocation.counts)
    return invocation.answer


def _enqueue(invocation: Invocation, backends: Backends, batch: Batch[InputRecord]) -> Batch[Any]:
    invocation.count("read", len(batch.items))
    worker, settings = invocation.worker.name, invocation.settings
    horizon = None if settings.horizon is None else milliseconds(settings.horizon)
    rules = ScorableRules(now_ms=now_ms(), horizon_ms=horizon, internal_accounts=settings.internal_accounts)
    records = batch.with_items([_raw(record) for record in batch.items])
    decoded = steps.decode_activities(records, worker)
    scorable = steps.filter_scorable(decoded, rules, invocation.count)
    kept: Any = steps.keep_users_of_share(scorable, backends.open_flags(), worker, invocation.count)
    if backends.builds_profiles:
        backends.open_arai().observe([steps.facts_with_user(record) for record in kept.items])
    return steps.enqueue(kept, backends.open_queue(), backends.open_staging_queue(), worker, invocation.count)


def _score(invocation: Invocation, backends: Backends, batch: Batch[InputRecord]) -> Batch[Any]:
    worker = invocation.worker.name
    queued = steps.decode_messages(_messages(invocation, batch), worker)
    kept: Any = steps.keep_users_of_share(queued, backends.open_flags(), worker, invocation.count)
    profiled = steps.fetch_arai(kept, backends.open_arai(), worker)
    return _score_and_persist(invocation, backends, profiled)


def _score_changes(invocation: Invocation, backends: Backends, batch: Batch[InputRecord]) -> Batch[Any]:
    invocation.count("read", len(batch.items))
    worker = invocation.worker.name
    records = batch.with_items([_raw(record) for record in batch.items])
    changes = steps.select_arai_changes(records, worker, invocation.count)
    kept: Any = steps.keep_users_of_share(changes, backends.open_flags(), worker, invocation.count)
    return _score_and_persist(invocation, backends, kept)


def _score_and_persist(invocation: Invocation, backends: Backends, batch: Batch[steps.Profiled]) -> Batch[Any]:
    worker, imports = invocation.worker.name, backends.open_imports()
    profiled = add_verifications(batch, backends.open_verifications())
    scored = steps.score_users(profiled, backends.open_model(), worker)
    applied = persisting.apply_imports(scored, imports)
    table, cache = backends.open_table(), backends.open_cache()
    return persisting.persist(applied, table, cache, imports, worker, invocation.count)


def _rescore(invocation: Invocation, backends: Backends, batch: Batch[InputRecord]) -> Batch[Any]:
    rescoring = Rescoring.of(invocation.worker.name, backends)
    return rescoring.rescore(_messages(invocation, batch), invocation.count)


def _verify(invocation: Invocation, backends: Backends, batch: Batch[InputRecord]) -> Batch[Any]:
    worker = invocation.worker.name
    decoded = consuming.decode_events(_messages(invocation, batch), worker)
    kept = consuming.keep_events_of_share(decoded, backends.open_flags(), worker, invocation.count)
    return consuming.consume_events(kept, EventStores.of(backends), worker, invocation.count)


def _raw(record: InputRecord) -> RawRecord:
    body = record.body
    if record.message_id and body is not None:
        body = opened(body).body
    return RawRecord(record.payload, record.position, body, record.error, record.trace)


def _messages(invocation: Invocation, batch: Batch[InputRecord]) -> Batch[ReceivedMessage]:
    """Records as a queue would deliver them; one that no queue delivered has no receipt, so it is never given back."""
    invocation.count("received", len(batch.items))
    return batch.with_items(
        [
            ReceivedMessage(
                receipt=record.message_id,
                group_id=record.group_id or record.position,
                body=record.body if record.body is not None else record.payload,
                receive_count=record.receive_count,
                message_id=record.message_id or record.position,
                sent_at_ms=record.sent_at_ms,
                trace=record.trace,
            )
            for record in batch.items
        ]
    )
