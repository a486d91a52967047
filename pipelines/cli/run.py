"""``fan-identity run``: one worker, over files to their end or streaming until it is told to stop."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.ledger import DEAD_LETTERED, REJECTED
from ...io.backends import Backends
from ...io.errors import UsageError
from ...io.file_ranges import detect_format, local_path
from ...io.logs import configure_logging
from ...io.settings import Settings, load_settings
from ..registry import Kind, Worker, worker_named
from .common import (
    EXIT_DEAD_LETTERS,
    AsJson,
    Format,
    Horizon,
    Model,
    Store,
    err,
    heading,
    out,
    parse_format,
    print_json,
    two_columns,
)

if TYPE_CHECKING:
    import apache_beam as beam

    from ...transforms.batches import BatchTransform
    from ...transforms.sources import Pace

_STREAM_HORIZON = timedelta(days=7)


def run(
    context: typer.Context,
    worker: Annotated[
        str | None, typer.Argument(metavar="[WORKER]", help="The worker; APP_NAME names it where left out.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="For enqueue workers: file:///folder/activities.jsonl.")] = None,
    store: Store = None,
    queue: Annotated[str | None, typer.Option(help="Queue address, where it is not the store's.")] = None,
    table: Annotated[str | None, typer.Option(help="Table address, where it is not the store's.")] = None,
    cache: Annotated[str | None, typer.Option(help="ARM cache address, where it is not the store's.")] = None,
    dead_letters: Annotated[str | None, typer.Option(help="Dead letter address, where not the store's.")] = None,
    model: Model = None,
    horizon: Horizon = None,
    file_format: Format = None,
    streaming: Annotated[bool, typer.Option(help="Go on until stopped, following what is appended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run one worker, over its input to the end or, with --streaming, until stopped.

    Ctrl-C (or SIGTERM) drains: what was read is finished, then the worker ends. Started again, it goes on where it
    stopped. Options of Beam itself follow after --.

    Workers: enqueueFromStream, enqueueFromPurchaseStream, enqueueFromVfStream, enqueueFromSQJourneyStream, scoreUsers.

    Examples:

      fan-identity run enqueueFromStream --source file://activities.jsonl --store sqlite:///fans.db --streaming

      fan-identity run scoreUsers --store sqlite:///fans.db --streaming

      fan-identity run scoreUsers --store sqlite:///fans.db --streaming -- --runner=PrismRunner
    """
    settings = load_settings(
        store=store,
        queue=queue,
        table=table,
        cache=cache,
        dead_letters=dead_letters,
        model=model,
        horizon=horizon,
    )
    name = worker or settings.app_name
    if name is None:
        raise UsageError("which worker? name one, or set APP_NAME; see fan-identity run --help")
    chosen = worker_named(name)
    configure_logging(settings.log_level, chosen.name, uuid.uuid4().hex)
    from ..runner import drain_on_signal, execute, pace_of, parse_beam_flags  # noqa: PLC0415 - Beam is slow to import

    options = parse_beam_flags(context.obj or [], prism=settings.prism)
    pace = pace_of(options) if streaming else None
    backends = Backends.of(settings)
    if chosen.kind is Kind.ENQUEUE:
        build = _enqueue(chosen, settings, backends, source, file_format, pace)
    else:
        if source is not None:
            raise UsageError(f"--source: {chosen.name} reads the queue; name it with --queue or --store")
        build = _score(chosen, settings, backends, pace)
    if streaming:
        err.print(f"{chosen.name} is running; stop it with Ctrl-C")
    with drain_on_signal(), backends.shared_lock():
        counts = execute(build, options)
    dead = sum(number for counter, number in counts.items() if counter.startswith(DEAD_LETTERED))
    _print_counts(chosen, counts, as_json)
    _check(chosen, counts, dead)
    if dead:
        err.print(f"{dead:,} dead letters; look at them with: fan-identity dead-letters list --store …")
        raise typer.Exit(EXIT_DEAD_LETTERS)


def _enqueue(
    worker: Worker,
    settings: Settings,
    backends: Backends,
    source: str | None,
    file_format: str | None,
    pace: "Pace | None",
) -> "Callable[[beam.Pipeline], Any]":
    from ...io.files import LineTail, plan_ranges  # noqa: PLC0415
    from ...transforms.sources import FollowFile, ReadActivityFiles  # noqa: PLC0415
    from .. import enqueue  # noqa: PLC0415

    if source is None:
        raise UsageError(f"{worker.name} needs --source, such as --source file:///folder/activities.jsonl")
    path = str(Path(local_path(source)).resolve())
    wanted = parse_format(file_format)
    horizon = settings.horizon or (_STREAM_HORIZON if pace else None)
    rules = enqueue.RulesOfNow(
        horizon_ms=None if horizon is None else int(horizon.total_seconds() * 1_000),
        internal_accounts=settings.internal_accounts,
    )
    if pace:
        followed = wanted or detect_format(path)
        LineTail(path, followed, "").close()  # says at once where a format cannot be followed
        reads: BatchTransform = FollowFile(path, followed, worker.name, backends, settings.batch_size, pace)
    else:
        reads = ReadActivityFiles(plan_ranges([path], wanted), settings.batch_size)
    return lambda pipeline: enqueue.build(pipeline, worker.name, reads, rules, backends)


def _score(
    worker: Worker, settings: Settings, backends: Backends, pace: "Pace | None"
) -> "Callable[[beam.Pipeline], Any]":
    from ...transforms.sources import DrainQueue, ReadFromQueue  # noqa: PLC0415
    from .. import score  # noqa: PLC0415

    backends.open_model()
    reads: BatchTransform = (
        ReadFromQueue(backends, settings.batch_size, pace) if pace else DrainQueue(backends, settings.batch_size)
    )
    return lambda pipeline: score.build(pipeline, worker.name, reads, backends)


def _print_counts(worker: Worker, counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        print_json({"worker": worker.name, **dict(sorted(counts.items()))})
    else:
        out.print(heading(worker.name), two_columns(sorted(counts.items())))


def _check(worker: Worker, counts: dict[str, int], dead: int) -> None:
    """Everything a worker read has ended somewhere, or the run says so."""
    if worker.kind is Kind.ENQUEUE:
        rejected = sum(number for counter, number in counts.items() if counter.startswith(REJECTED))
        missing = counts.get("read", 0) - rejected - counts.get("deduplicated", 0) - counts.get("enqueued", 0) - dead
    else:
        missing = counts.get("received", 0) - counts.get("scored", 0) - dead
    if missing:
        err.print(f"error: {missing} records are unaccounted for: this is a defect of fan-identity")
        raise typer.Exit(EXIT_DEAD_LETTERS)
