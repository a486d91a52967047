"""``fan-identity rescore``: fans scored again though nothing new happened, as a job over the table."""

import hashlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from ...domain.activity import MalformedRecordError, format_time_ms
from ...domain.rescoring import RescoreRequest, check_request
from ...io.backends import Backends
from ...io.clock import now_ms
from ...io.errors import UsageError
from ...io.leases import Lease
from ...io.logs import configure_logging
from ...io.settings import Settings, load_settings
from .common import (
    EXIT_DEAD_LETTERS,
    EXIT_INTERRUPTED,
    AsJson,
    Model,
    Store,
    err,
    heading,
    out,
    print_json,
    two_columns,
)
from .job_files import ReportFile, SummaryFile, check_job_files, failure_told, write_job_files
from .option_values import rate_option, time_option
from .progress import progress_bar

if TYPE_CHECKING:
    from ...batch.job_summary import JobSummary
    from ...batch.rescore import RescoreRun

_WORKER: Final = "processRescoreEvents"
_NOT_USED: Final = "sqs://not-used"
"""For the rescore queue, where none is set: an address that is never opened."""


def rescore(
    context: typer.Context,
    users: Annotated[
        Path | None, typer.Option(help="Score the fans of this file: one user id a line.", show_default=False)
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Score everyone whose latest score is of this cluster.", show_default=False)
    ] = None,
    model_version: Annotated[
        str | None, typer.Option(help="Score everyone whose latest score is this model's.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", help="Score everyone whose latest score is of this time on.", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="… and of an earlier time than this.", show_default=False)
    ] = None,
    rate: Annotated[
        str, typer.Option(help="Fans a second in each process, so that live traffic keeps its latency.")
    ] = "200/s",
    rescore_id: Annotated[
        str | None,
        typer.Option(
            help="Names the job and its scores; made of the day and of who is meant unless given.", show_default=False
        ),
    ] = None,
    store: Store = None,
    table: Annotated[str | None, typer.Option(help="The table, as for run.", show_default=False)] = None,
    cache: Annotated[str | None, typer.Option(help="ARM cache, as for run.", show_default=False)] = None,
    dead_letters: Annotated[str | None, typer.Option(help="Dead letters, as for run.", show_default=False)] = None,
    model: Model = None,
    summary: SummaryFile = None,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Score fans again though nothing new happened: by users, cluster, model version or time.

    What a request in the rescore queue does (processRescoreEvents), as a job. All its scores are of the time it first
    started; a newer live score stays. Killed or stopped, the same command goes on, and fans that are done are skipped;
    under another --rescore-id it does all again. Options of Beam itself follow after --.

    Exit codes: 0 done; 1 finished with dead letters; 2 bad usage or settings; 3 a backend out of reach; 130 stopped.

    Examples:

      fan-identity rescore --model-version scorecard-1 --store sqlite:///fans.db

      fan-identity rescore --users fans.txt --rate 50/s --store sqlite:///fans.db

      fan-identity rescore --from 2026-11-27T10:00:00Z --to 2026-11-27T11:00:00Z --rescore-id after-the-outage
      --table "dynamodb://fanIdentityTable?region=eu-west-1"
    """
    began = now_ms()
    check_job_files(summary, report)
    request = _request(users, cluster, model_version, time_option("--from", since), time_option("--to", until))
    if rescore_id is not None:
        request = msgspec.structs.replace(request, rescore_id=rescore_id)
    try:
        check_request(msgspec.structs.replace(request, users=request.users and request.users[:1]))
    except MalformedRecordError as error:
        raise UsageError(_said(error)) from None
    settings = load_settings(
        store=store, table=table, cache=cache, dead_letters=dead_letters, model=model, rescore_rate=_rate(rate)
    )
    if settings.store is None and settings.rescore_queue is None:
        settings = settings.model_copy(update={"rescore_queue": _NOT_USED})
    configure_logging(settings.log_level, _WORKER, uuid.uuid4().hex)
    from ...batch.rescore import Rescore  # noqa: PLC0415 - Beam is slow to import
    from ...batch.rescore import rescore as run_rescore  # noqa: PLC0415
    from ..clusters import JobGoesOnError  # noqa: PLC0415
    from ..runner import end_on_signal, parse_beam_flags, runs_here  # noqa: PLC0415

    backends = Backends.of(settings, _WORKER)
    backends.check_stores()
    work = Rescore(request, backends)
    options = parse_beam_flags(context.obj or [], prism=settings.prism, job=f"fan-identity-{work.job_id}")
    if not backends.open_flags().is_enabled(_WORKER):
        err.print(f"{_WORKER} is switched off by its flag")
        if as_json:
            print_json({"job": "rescore", "outcome": "nothing to do", "counts": {"skipped": 1}})
        return
    try:
        with (
            failure_told("rescore", summary, report),
            end_on_signal(options),
            backends.shared_lock(),
            Lease(backends.open_table(), work.job_id),
        ):
            run = run_rescore(work, options, progress_bar)
    except JobGoesOnError as left:
        err.print(f"the rescoring goes on on the cluster, as job {left.job}; {left.advice}", soft_wrap=True)
        if as_json:
            print_json({"job": "rescore", "cluster_job": left.job, "goes_on": 1})
        return
    job = _job(run, request, settings, began, here=runs_here(options))
    write_job_files(job, summary, report)
    _finish(run, request, job, as_json=as_json, here=runs_here(options))


def _request(
    users: Path | None, cluster: str | None, model_version: str | None, from_ms: int | None, to_ms: int | None
) -> RescoreRequest:
    """The request of the options, named by what they say."""
    named = None if users is None else _users(users)
    told = msgspec.json.encode([named, cluster, model_version, from_ms, to_ms])
    return RescoreRequest(
        # Of the day, so that a nightly run is a new job; started again the same day it goes on.
        rescore_id=f"job-{format_time_ms(now_ms())[:10]}-{hashlib.sha256(told).hexdigest()[:16]}",
        users=named,
        cluster_id=cluster,
        model_version=model_version,
        scored_from=from_ms,
        scored_to=to_ms,
    )


def _users(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"--users: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--users: {path} is not UTF-8; save it as UTF-8, one user id a line") from None
    # Not splitlines(): a user id may hold the line ends that only Unicode knows.
    found = tuple(dict.fromkeys(line for line in (one.removesuffix("\r") for one in text.split("\n")) if line.strip()))
    if not found:
        raise UsageError(f"--users: {path} names nobody; write one user id a line")
    return found


def _said(error: MalformedRecordError) -> str:
    text = str(error)
    if "has one of" in text:
        return "name whom to score in one way: --users, --cluster, --model-version, or --from and --to"
    return text.replace("scoredFrom", "--from").replace("scoredTo", "--to").replace("rescoreId", "--rescore-id")


def _rate(text: str) -> int:
    return rate_option("--rate", text)


def _job(run: "RescoreRun", request: RescoreRequest, settings: Settings, began: int, *, here: bool) -> "JobSummary":
    from ...batch.job_summary import JobSummary, Outcome, shown_settings  # noqa: PLC0415 - imports Jinja

    failed = run.dead_letters or (here and run.unaccounted)
    code = EXIT_INTERRUPTED if run.interrupted else EXIT_DEAD_LETTERS if failed else 0
    counts = {"selected": 0, "scored": 0, "done_before": 0, **dict(sorted(run.counts.items()))}
    nothing = counts["selected"] == counts["done_before"]
    ends = {0: Outcome.NOTHING if nothing else Outcome.DONE, EXIT_INTERRUPTED: Outcome.INTERRUPTED}
    return JobSummary(
        job="rescore",
        started_at=began,
        outcome=ends.get(code, Outcome.DEAD_LETTERS),
        exit_code=code,
        counts=counts,
        settings={**shown_settings(settings), "rescore-id": request.rescore_id},
        notes=tuple(_notes(counts, interrupted=run.interrupted)),
    )


def _finish(run: "RescoreRun", request: RescoreRequest, job: "JobSummary", *, as_json: bool, here: bool) -> None:
    """Prints what was done, and exits with the code for it.

    Raises:
        typer.Exit: 1 with dead letters or with books that do not balance, 130 where the run was stopped.
    """
    unaccounted = run.unaccounted if here else 0
    requested_at = format_time_ms(run.requested_at)
    if as_json:
        told = {"rescoreId": request.rescore_id, "requestedAt": requested_at, "unaccounted": unaccounted}
        print_json({**job.as_json(), **told})
    else:
        out.print(heading(f"Rescore {request.rescore_id}, as of {requested_at}"), two_columns(job.counts.items()))
    for note in job.notes:
        err.print(note)
    if unaccounted:
        err.print(f"error: {unaccounted} fans are unaccounted for: this is a defect of fan-identity")
    elif run.dead_letters and not run.interrupted:
        err.print(f"{run.dead_letters:,} dead letters; look at them with: fan-identity dead-letters list --store …")
    if job.exit_code:
        raise typer.Exit(job.exit_code)


def _notes(counts: dict[str, int], *, interrupted: bool) -> list[str]:
    notes: list[str] = []
    if interrupted:
        notes.append("stopped: run the same command again to finish; what is done is skipped")
    if not counts["selected"]:
        notes.append("nobody is meant: no latest score matches")
    elif counts["done_before"] == counts["selected"]:
        notes.append("an earlier run of this id did all of it: nobody was scored (--rescore-id NAME does it again)")
    elif counts["done_before"]:
        notes.append(
            f"an earlier run did {counts['done_before']:,} of {counts['selected']:,} fans: they were not scored again"
        )
    return notes
