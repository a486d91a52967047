"""``fan-identity backfill``: a stream worker over a range of its source or over archived files."""

import uuid
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ...domain.activity import format_time_ms
from ...io.backends import STREAMS, Backends, check_parts, scheme_of
from ...io.clock import now_ms
from ...io.errors import UsageError
from ...io.leases import Lease
from ...io.logs import configure_logging
from ...io.registry import WORKERS, Kind, Worker, worker_named
from ...io.settings import Settings, load_settings
from .common import (
    EXIT_DEAD_LETTERS,
    EXIT_INTERRUPTED,
    AsJson,
    Format,
    Model,
    Store,
    err,
    heading,
    out,
    parse_format,
    print_json,
    two_columns,
)
from .job_files import ReportFile, SummaryFile, check_job_files, failure_told, write_job_files
from .option_values import time_option
from .progress import progress_bar

if TYPE_CHECKING:
    from ...batch.backfill import Backfill, BackfillRun
    from ...batch.job_summary import JobSummary

_NOT_USED: Final = "sqs://not-used.fifo"
"""For the queue of a backfill that goes past it, where none is set: an address that is never opened."""


def backfill(
    context: typer.Context,
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="The stream worker to run over what is past.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="What to read; give it again for more. Files (JSONL, CSV, Parquet, access logs; also .gz and .zst), "
            "folders and quoted globs, or one stream: kafka://host:9092/topic, kinesis://stream. For scoreUsers, ARAI "
            "changes: dynamodb-streams://table, kinesis://stream, or JSON lines of change records.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--from", help="Of a stream: records of this time on, ISO 8601; the oldest there are unless given."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Of a stream: records before this time; up to now unless given.")
    ] = None,
    score_with: Annotated[
        str | None,
        typer.Option(
            "--score-with",
            metavar="WORKER",
            help="Score an enqueue worker's activities at once, as scoreUsers or stagingScoreUsers, past the queue: "
            "live traffic does not wait behind them.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Names the run: under another name, what is done is done again.")] = "",
    store: Store = None,
    queue: Annotated[str | None, typer.Option(help="The worker's queue, as for run.", show_default=False)] = None,
    table: Annotated[str | None, typer.Option(help="The worker's table, as for run.", show_default=False)] = None,
    cache: Annotated[str | None, typer.Option(help="ARM cache, as for run.", show_default=False)] = None,
    dead_letters: Annotated[str | None, typer.Option(help="Dead letters, as for run.", show_default=False)] = None,
    model: Model = None,
    file_format: Format = None,
    summary: SummaryFile = None,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a stream worker over a range of its source, or over archived files.

    Nothing is too old for a backfill, and a score that is late never replaces a newer one: it may run beside live
    traffic. Killed or stopped, the same command goes on: parts that are done are skipped, the others are done again,
    which changes nothing. Options of Beam itself follow after --.

    Exit codes: 0 done; 1 finished with dead letters; 2 bad usage or settings; 3 a backend out of reach; 130 stopped.

    Examples:

      fan-identity backfill enqueueFromStream --source "archive/2026-11-*.jsonl.gz" --score-with scoreUsers
      --store sqlite:///fans.db

      fan-identity backfill enqueueFromStream --source kafka://host:9092/activities --from 2026-11-01T00:00:00Z
      --to 2026-11-02T00:00:00Z --queue "sqs://backfill.fifo?region=eu-west-1"

      fan-identity backfill scoreUsers --source "kinesis://arai-changes?region=eu-west-1" --from 2026-11-01

      fan-identity backfill enqueueFromStream --source archive/ --score-with scoreUsers -- --runner=PrismRunner
    """
    began = now_ms()
    check_job_files(summary, report)
    chosen = worker_named(worker)
    scorer = _scorer(chosen, score_with)
    settings = _settings(
        chosen,
        scorer,
        {"store": store, "queue": queue, "table": table, "cache": cache, "dead_letters": dead_letters, "model": model},
    )
    configure_logging(settings.log_level, chosen.name, uuid.uuid4().hex)
    from ...batch.backfill import run_backfill  # noqa: PLC0415 - Beam is slow to import
    from ..clusters import JobGoesOnError  # noqa: PLC0415
    from ..runner import end_on_signal, parse_beam_flags, runs_here  # noqa: PLC0415

    work = _work(
        chosen,
        scorer,
        source or [],
        settings,
        time_option("--from", since),
        time_option("--to", until),
        file_format,
        name,
    )
    options = parse_beam_flags(context.obj or [], prism=settings.prism, job=f"fan-identity-{work.job_id}")
    if not work.backends.open_flags().is_enabled(chosen.name):
        err.print(f"{chosen.name} is switched off by its flag")
        if as_json:
            print_json({"job": "backfill", "outcome": "nothing to do", "counts": {"skipped": 1}})
        return
    try:
        with (
            failure_told("backfill", summary, report),
            end_on_signal(options),
            work.backends.shared_lock(),
            Lease(work.backends.open_table(), work.job_id),
        ):
            run = run_backfill(work, options, progress_bar)
    except JobGoesOnError as left:
        err.print(f"the backfill goes on on the cluster, as job {left.job}; {left.advice}", soft_wrap=True)
        if as_json:
            print_json({"job": "backfill", "cluster_job": left.job, "goes_on": 1})
        return
    job = _job(work, run, settings, began, here=runs_here(options))
    write_job_files(job, summary, report)
    _finish(work, run, job, as_json=as_json, here=runs_here(options))


def _scorer(worker: Worker, name: str | None) -> Worker | None:
    if worker.kind not in (Kind.ENQUEUE, Kind.SCORE):
        possible = ", ".join(one.name for one in WORKERS.values() if one.kind in (Kind.ENQUEUE, Kind.SCORE))
        raise UsageError(f"{worker.name} reads no stream; a backfill runs one of {possible}")
    if name is None:
        return None
    scorer = worker_named(name)
    if worker.kind is not Kind.ENQUEUE or scorer.kind is not Kind.SCORE:
        raise UsageError("--score-with: an enqueue worker's activities are scored with scoreUsers or stagingScoreUsers")
    return scorer


def _settings(worker: Worker, scorer: Worker | None, flags: dict[str, str | None]) -> Settings:
    known = scorer or worker
    for name in ("queue", "table", "model"):
        flags[getattr(known, f"{name}_setting")] = flags.pop(name)
    settings = load_settings(**flags)
    if scorer is not None and settings.store is None and getattr(settings, known.queue_setting) is None:
        return settings.model_copy(update={known.queue_setting: _NOT_USED})
    return settings


def _work(
    worker: Worker,
    scorer: Worker | None,
    sources: list[str],
    settings: Settings,
    from_ms: int | None,
    to_ms: int | None,
    file_format: str | None,
    name: str,
) -> "Backfill":
    from ...batch.backfill import Backfill  # noqa: PLC0415 - imports Beam
    from ...batch.backfill_sources import ranged_source  # noqa: PLC0415
    from ..workers import check  # noqa: PLC0415

    if not sources:
        raise UsageError("--source: name what to read: files, folders, globs, or one stream such as kafka://host/topic")
    streams = [source for source in sources if scheme_of(source) in STREAMS]
    if streams and len(sources) > 1:
        raise UsageError("--source: one stream, or files; run the command once for each stream")
    if not streams and (from_ms is not None or to_ms is not None):
        raise UsageError("--from and --to: files are read whole; leave them out, or name a stream")
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise UsageError("--from: has to lie before --to")
    if streams and worker.kind is Kind.SCORE and scheme_of(sources[0]) == "kafka":
        raise UsageError(
            f"--source: {worker.name} reads ARAI changes: dynamodb-streams://… or kinesis://…, not kafka://"
        )
    address = ranged_source(sources[0], from_ms, to_ms) if streams else None
    backends = Backends.of(settings, (scorer or worker).name, address)
    if scorer is None and (streams or worker.kind is Kind.ENQUEUE):
        check(worker, backends)
    else:
        _check_scoring(backends)
    return Backfill(
        worker=worker.name,
        backends=backends,
        sources=sources,
        scorer=None if scorer is None else scorer.name,
        from_ms=from_ms,
        to_ms=to_ms,
        format=parse_format(file_format),
        internal_accounts=settings.internal_accounts,
        name=name,
        batch_size=settings.batch_size,
        splits=settings.splits,
    )


def _check_scoring(backends: Backends) -> None:
    """As ``workers.check``, without the queue: the backfill goes past it."""
    backends.check_stores()
    if scheme_of(backends.source or "") in STREAMS:
        check_parts([backends.open_stream()])


def _finish(work: "Backfill", run: "BackfillRun", job: "JobSummary", *, as_json: bool, here: bool) -> None:
    """Prints what was done, and exits with the code for it.

    Raises:
        typer.Exit: 1 with dead letters or with books that do not balance, 130 where the run was stopped.
    """
    dead, unaccounted = run.ledger.total_dead_lettered, run.ledger.unaccounted if here else 0
    if as_json:
        print_json({**job.as_json(), "jobId": run.job_id, "unaccounted": unaccounted})
    else:
        out.print(heading(f"Backfill of {work.worker}"), two_columns(job.counts.items()))
    for note in job.notes:
        err.print(note)
    if unaccounted:
        err.print(f"error: {unaccounted} records are unaccounted for: this is a defect of fan-identity")
    elif dead and not run.interrupted:
        err.print(f"{dead:,} dead letters; look at them with: fan-identity dead-letters list --store …")
    if job.exit_code:
        raise typer.Exit(job.exit_code)


def _job(work: "Backfill", run: "BackfillRun", settings: Settings, began: int, *, here: bool) -> "JobSummary":
    from ...batch.job_summary import JobSummary, Outcome, shown_settings  # noqa: PLC0415 - imports Jinja

    failed = run.ledger.total_dead_lettered or (here and run.ledger.unaccounted)
    code = EXIT_INTERRUPTED if run.interrupted else EXIT_DEAD_LETTERS if failed else 0
    nothing = bool(run.parts) and run.parts_done_before == run.parts
    if run.interrupted:
        outcome = Outcome.INTERRUPTED
    elif code:
        outcome = Outcome.DEAD_LETTERS
    else:
        outcome = Outcome.NOTHING if nothing else Outcome.DONE
    counts = {"read": 0, **dict(sorted(run.counts.items()))}
    if run.parts:
        counts |= {"files": run.files, "parts": run.parts, "parts_done_before": run.parts_done_before}
    times = {"from": work.from_ms, "to": work.to_ms}
    return JobSummary(
        job="backfill",
        started_at=began,
        outcome=outcome,
        exit_code=code,
        counts=counts,
        settings={
            **shown_settings(settings),
            "worker": work.worker,
            **({} if work.scorer is None else {"score-with": work.scorer}),
            **{name: format_time_ms(time_ms) for name, time_ms in times.items() if time_ms is not None},
        },
        notes=_notes(run, nothing=nothing),
    )


def _notes(run: "BackfillRun", *, nothing: bool) -> tuple[str, ...]:
    notes: list[str] = []
    if run.interrupted:
        notes.append("stopped: run the same command again to finish; what is done is skipped")
    if nothing:
        notes.append("an earlier run did all of it: nothing was read (--name NAME does it again)")
    elif run.parts_done_before:
        notes.append(f"an earlier run did {run.parts_done_before:,} of {run.parts:,} parts: they were not read again")
    if resumed := run.counts.get("partitions_resumed", 0):
        notes.append(f"{resumed:,} partitions went on where an earlier run was")
    return tuple(notes)
