"""``fan-identity run``: one worker, over its input to the end or streaming until it is told to stop."""

import uuid
from typing import Annotated

import typer

from ...domain.imports import ImportKind
from ...domain.ledger import DEAD_LETTERED, REJECTED
from ...io.backends import Backends
from ...io.ending import end
from ...io.errors import UsageError
from ...io.logs import configure_logging
from ...io.registry import Kind, Worker, worker_named
from ...io.settings import load_settings
from ...io.telemetry import start as telemetry
from .common import (
    EXIT_DEAD_LETTERS,
    AsJson,
    Format,
    Horizon,
    MetricsPort,
    Model,
    Store,
    err,
    heading,
    out,
    parse_format,
    print_json,
    two_columns,
)
from .imports import run_import
from .liveness import run_liveness


def run(
    context: typer.Context,
    worker: Annotated[
        str | None, typer.Argument(metavar="[WORKER]", help="The worker; APP_NAME names it where left out.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="What an enqueue worker reads: kafka://host:9092/topic, kinesis://stream, pubsub://project/name, "
            "sqs://queue or file:///folder/activities.jsonl. For scoreUsers, ARAI changes: dynamodb-streams://table. "
            "For imports, files."
        ),
    ] = None,
    store: Store = None,
    queue: Annotated[
        str | None,
        typer.Option(help="The worker's queue: sqs://name.fifo?region=…, pubsub://project/topic or sqlite:///f."),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="The worker's table: dynamodb://name?region=… or sqlite:///f.")
    ] = None,
    cache: Annotated[str | None, typer.Option(help="ARM cache: redis://host/0, rediss://…, redis-cluster://….")] = None,
    dead_letters: Annotated[str | None, typer.Option(help="Dead letters: dynamodb://name or sqlite:///f.")] = None,
    model: Model = None,
    horizon: Horizon = None,
    file_format: Format = None,
    streaming: Annotated[bool, typer.Option(help="Go on until stopped, following what is appended.")] = False,
    every: Annotated[
        str | None, typer.Option(help="checkLiveness alone: probe again and again, such as 15s.", show_default=False)
    ] = None,
    metrics_port: MetricsPort = None,
    as_json: AsJson = False,
) -> None:
    """Run one worker, over its input to the end or, with --streaming, until stopped.

    Ctrl-C (or SIGTERM) drains: what was read is finished, then the worker ends. Started again, it goes on where it
    stopped. A job on a cluster goes on without this command, which says how to stop it. Options of Beam itself follow
    after --. Servers that are not the cloud's own are named by options of the
    address: sqs://name?endpoint=http://127.0.0.1:9324. Without --streaming, a stream is read up to where it is now, or
    over a range: kafka://host/topic?start_time=2026-11-27T10:00:00Z&end_time=2026-11-27T11:00:00Z.

    Workers: enqueueFromStream, enqueueFromPurchaseStream, enqueueFromVfStream, enqueueFromSQJourneyStream,
    enqueueFromDemandStream, scoreUsers, stagingScoreUsers, processRescoreEvents, handleEvent; checkLiveness probes
    every part the settings name, once or with --every (exit 3: something is down); startClusterImport and
    startBotOrNotImport import the files of --source as "fan-identity imports start" does.

    Examples:

      fan-identity run enqueueFromStream --source file://activities.jsonl --store sqlite:///fans.db --streaming

      fan-identity run enqueueFromStream --source kafka://host:9092/activities --store sqlite:///fans.db --streaming

      fan-identity run scoreUsers --store sqlite:///fans.db --streaming

      fan-identity run scoreUsers --store sqlite:///fans.db --streaming -- --runner=PrismRunner

      fan-identity run startClusterImport --source s3://bucket/clusters/2026-11-26/ --store sqlite:///fans.db
    """
    name = worker or load_settings().app_name
    if name is None:
        raise UsageError("which worker? name one, or set APP_NAME; see fan-identity run --help")
    if name in {kind.worker for kind in ImportKind}:
        run_import(name, context.obj or [], source, file_format, store, table, cache, dead_letters, as_json=as_json)
        return
    chosen = worker_named(name)
    if chosen.kind is Kind.LIVENESS:
        run_liveness(every, store, metrics_port, as_json=as_json)
        return
    if every is not None:
        raise UsageError(f"--every is checkLiveness's; {chosen.name} goes on by itself with --streaming")
    settings = load_settings(
        store=store,
        source=source,
        cache=cache,
        dead_letters=dead_letters,
        horizon=horizon,
        metrics_port=metrics_port,
        **{chosen.queue_setting: queue, chosen.table_setting: table, chosen.model_setting: model},
    )
    configure_logging(settings.log_level, chosen.name, uuid.uuid4().hex)
    from ..clusters import JobGoesOnError  # noqa: PLC0415 - Beam is slow to import
    from ..runner import end_on_signal, execute, pace_of, parse_beam_flags, runner_name, runs_here  # noqa: PLC0415
    from ..workers import plan  # noqa: PLC0415

    job = f"fan-identity-{chosen.name.lower()}"  # as Dataflow wants names
    options = parse_beam_flags(context.obj or [], prism=settings.prism, streaming=streaming, job=job)
    pace = pace_of(options) if streaming else None
    backends = Backends.of(settings, chosen.name, settings.source).reporting(settings, runner_name(options))
    if not streaming and not backends.open_flags().is_enabled(chosen.name):
        err.print(f"{chosen.name} is switched off by its flag")
        _print_counts(chosen, {"skipped": 1}, as_json)
        return
    build = plan(chosen, settings, backends, parse_format(file_format), pace)
    here = runs_here(options)
    if here:
        telemetry.start(chosen.name, settings)
    if streaming:
        err.print(f"{chosen.name} is running; stop it with Ctrl-C" if here else f"{chosen.name} goes to the cluster")
    try:
        with end_on_signal(options), backends.shared_lock():
            counts = execute(build, options)
    except JobGoesOnError as left:
        err.print(f"{chosen.name} goes on on the cluster, as job {left.job}; {left.advice}", soft_wrap=True)
        if as_json:
            print_json({"worker": chosen.name, "job": left.job, "goes_on": 1})
        return
    finally:
        end()  # reports and telemetry say their last side by side
    dead = sum(number for counter, number in counts.items() if counter.startswith(DEAD_LETTERED))
    _print_counts(chosen, counts, as_json)
    if here:  # a cluster counts what it did again after a failure twice
        _check(chosen, counts, dead)
    if dead:
        err.print(f"{dead:,} dead letters; look at them with: fan-identity dead-letters list --store …")
        raise typer.Exit(EXIT_DEAD_LETTERS)


def _print_counts(worker: Worker, counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        print_json({"worker": worker.name, **dict(sorted(counts.items()))})
    else:
        out.print(heading(worker.name), two_columns(sorted(counts.items())))


def _check(worker: Worker, counts: dict[str, int], dead: int) -> None:
    """Everything a worker read has ended somewhere, or the run says so."""
    rejected = sum(number for counter, number in counts.items() if counter.startswith(REJECTED))
    came_in = counts.get("read", 0) if "read" in counts else counts.get("received", 0)
    done = {
        Kind.ENQUEUE: ("enqueued", "deduplicated"),
        Kind.SCORE: ("scored",),
        Kind.RESCORE: ("requests",),
        Kind.VERIFY: ("stored", "stale", "deduplicated"),
    }[worker.kind]
    missing = came_in - rejected - dead - counts.get("returned", 0) - sum(counts.get(name, 0) for name in done)
    if worker.kind is Kind.RESCORE:
        return  # one request is many scores and dead letters; they are counted, but do not add up to it
    if missing:
        err.print(f"error: {missing} records are unaccounted for: this is a defect of fan-identity")
        raise typer.Exit(EXIT_DEAD_LETTERS)
