"""``fan-identity dead-letters redrive``: dead letters sent again, all that match or one."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.table import Table

from ...domain.dead_letters import IMPORT_EVENTS, OF_IMPORTS, WAITING, LetterFilter, tally_letters
from ...io.backends import Backends, open_table
from ...io.clock import now_ms
from ...io.errors import UsageError
from ...io.leases import Lease
from ...io.pacing import Pacer
from ...io.ports import DeadLetterArchive, StoredDeadLetter
from ...io.registry import worker_named
from ...io.settings import Settings, load_settings
from .common import EXIT_DEAD_LETTERS, EXIT_INTERRUPTED, AsJson, Store, err, out, print_json, printable
from .job_files import ReportFile, SummaryFile, check_job_files, failure_told, write_job_files
from .letter_options import (
    Activity,
    CodeVersion,
    ErrorOption,
    Letters,
    ReasonOption,
    Since,
    Until,
    Worker,
    letter_filter,
    one_letter,
    opened_archive,
)
from .option_values import rate_option
from .progress import progress_bar

if TYPE_CHECKING:
    from ...batch.job_summary import JobSummary
    from ...batch.redrive import RedriveResult


def redrive(
    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Letters by id; all that match else.")
    ] = None,
    store: Store = None,
    dead_letters: Letters = None,
    worker: Worker = None,
    reason: ReasonOption = None,
    error: ErrorOption = None,
    since: Since = None,
    until: Until = None,
    code_version: CodeVersion = None,
    activity: Activity = None,
    expected: Annotated[
        int | None, typer.Option(min=0, help="Do nothing unless this many match.", show_default=False)
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(help="Letters a second, such as 200/s; as fast as can be unless given.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent again.")] = False,
    summary: SummaryFile = None,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, to where they came from; then run the worker it names.

    What fails again stays a dead letter with one more attempt. Stopped or killed, the same command goes on: letters
    that were sent are not sent again. Letters of imports come again with their file, not by row.

    Exit codes: 0 done; 1 some failed again or cannot be sent; 2 bad usage; 3 a backend out of reach; 130 stopped.

    Examples:

      fan-identity dead-letters redrive --store sqlite:///fans.db --reason too_many_receives

      fan-identity dead-letters redrive 3f2a 77c0 --store sqlite:///fans.db

      fan-identity dead-letters redrive --dead-letters dynamodb://fanIdentityDeadLetters --error "timed out" --dry-run

      fan-identity dead-letters redrive --store sqlite:///fans.db --code-version 0.1.0 --rate 200/s
    """
    began = now_ms()
    check_job_files(summary, report)
    opened = opened_archive(store, dead_letters)
    where = letter_filter(worker, reason, error, since, until, code_version, activity, waiting_only=True)
    pacer = None if rate is None else Pacer(rate_option("--rate", rate))
    chosen = [one_letter(opened, letter_id) for letter_id in letter_ids or ()]
    if chosen and (where != WAITING or expected is not None):
        raise UsageError("name letters by their ids, or those that match; not both")
    _check_workers({letter.letter.worker for letter in chosen} or {worker})
    if dry_run:
        _say_what_would_be_sent(opened, where, chosen, as_json=as_json)
        return
    from ...batch.redrive import Redrive  # noqa: PLC0415 - imports Beam
    from ...transforms.draining import draining  # noqa: PLC0415
    from ..enqueue import RulesOfNow  # noqa: PLC0415
    from ..runner import drain_on_signal  # noqa: PLC0415

    settings = load_settings(store=store, dead_letters=dead_letters)
    rules = RulesOfNow(internal_accounts=settings.internal_accounts)()
    run = Redrive(opened, rules, lambda name: Backends.of(settings, name), pacer, draining.is_set)
    # What comes meanwhile, or fails again, is of another run: else one during an outage would not end.
    before = began + 1
    where = msgspec.structs.replace(where, until_ms=before if where.until_ms is None else min(where.until_ms, before))
    opened.select(where, limit=1)  # a store that is not there is told; the lock's table would make it
    # The lock is kept beside the letters.
    beside = settings.dead_letters or settings.store
    locks = open_table(beside or "", "dead-letters", worker_named("scoreUsers").table_name)
    with (
        failure_told("dead-letters redrive", summary, report),
        Lease(locks, "dead-letters redrive"),
        drain_on_signal(),
    ):
        total = len(chosen) or opened.count(where)
        if expected not in (None, total):
            raise UsageError(f"--expected: {total:,} letters match, not {expected:,}: look at them again")
        with progress_bar("redrive", total, lambda: run.result.looked_at):
            result = run.run([chosen] if chosen else opened.pages(where))
    job = _job(result, settings, began)
    write_job_files(job, summary, report)
    _finish(result, settings, job, as_json=as_json)


def _check_workers(workers: Iterable[str | None]) -> None:
    """Raises UsageError where a worker's letters cannot be sent again."""
    for worker in workers:
        if worker == IMPORT_EVENTS:
            raise UsageError(
                "an S3 event is not sent to its queue again: fan-identity dead-letters show ID --raw | "
                "fan-identity imports on-event -"
            )
        if worker in OF_IMPORTS:
            raise UsageError(
                f"letters of {worker} cannot be sent again by row: correct the file and import it again "
                "(dead-letters show ID names file and row)"
            )


def _finish(result: "RedriveResult", settings: Settings, job: "JobSummary", *, as_json: bool) -> None:
    """Prints what was done, and exits with the code for it.

    Raises:
        typer.Exit: 1 where letters wait still, 130 where the run was stopped.
    """
    if as_json:
        sent = {"queued": result.queued, "rejected": result.rejected, "failed": result.failed}
        print_json({**sent, **job.as_json()})
    else:
        out.print(f"{result.queued:,} queued, {result.rejected:,} rejected, {result.failed:,} failed again")
    if result.of_imports:
        err.print(f"{result.of_imports:,} are of imports, which cannot be sent again by row: import their files again")
    where = f" --store {settings.store}" if settings.store else ""
    for worker in result.workers:
        err.print(f"work them off with: fan-identity run {worker}{where}")
    if result.interrupted:
        err.print("stopped: run the same command again to finish; what was sent is not sent again")
    if job.exit_code:
        raise typer.Exit(job.exit_code)


def _job(result: "RedriveResult", settings: Settings, began: int) -> "JobSummary":
    from ...batch.job_summary import JobSummary, Outcome, shown_settings  # noqa: PLC0415 - imports Jinja

    code = EXIT_INTERRUPTED if result.interrupted else EXIT_DEAD_LETTERS if result.failed or result.of_imports else 0
    ends = {0: Outcome.DONE, EXIT_DEAD_LETTERS: Outcome.DEAD_LETTERS, EXIT_INTERRUPTED: Outcome.INTERRUPTED}
    return JobSummary(
        job="dead-letters redrive",
        started_at=began,
        outcome=ends[code] if result.looked_at or code else Outcome.NOTHING,
        exit_code=code,
        counts={
            "queued": result.queued,
            "rejected": result.rejected,
            "failed": result.failed,
            "of_imports": result.of_imports,
        },
        settings=shown_settings(settings),
    )


def _say_what_would_be_sent(
    letters: DeadLetterArchive, where: LetterFilter, chosen: Sequence[StoredDeadLetter], *, as_json: bool
) -> None:
    named = ((stored.letter.worker, stored.letter.reason, stored.letter.dead_letter_id) for stored in chosen)
    kinds = tally_letters(named) if chosen else letters.tally(where)
    total = sum(kind.number for kind in kinds if kind.worker not in OF_IMPORTS)
    if as_json:
        print_json({"wouldRedrive": total, "kinds": [msgspec.to_builtins(kind) for kind in kinds]})
        return
    out.print(f"{total:,} dead letters would be sent again")
    if not kinds:
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("worker", "reason", "letters", "such as"):
        table.add_column(column, no_wrap=column != "such as", justify="right" if column == "letters" else "left")
    for kind in kinds:
        example = letters.get(kind.examples[0])
        said = "" if example is None else f"{example.letter.dead_letter_id[:12]}: {example.letter.error}"
        if kind.worker in OF_IMPORTS:
            said = "not sent: import the file again"
        table.add_row(kind.worker, kind.reason, f"{kind.number:,}", printable(said))
    out.print(table)
