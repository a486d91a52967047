"""``fan-identity imports``: clusters and bot-or-not scores from elsewhere, as versions that can be taken back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...domain.imports import ImportKind, Thresholds
from ...io.backends import Backends, open_flags
from ...io.clock import now_ms
from ...io.errors import UsageError
from ...io.settings import Settings, load_settings
from .common import EXIT_DEAD_LETTERS, AsJson, Store, err, out, print_json, printable
from .job_files import SummaryFile, check_job_files, failure_told, write_job_files

if TYPE_CHECKING:
    from ...batch.import_job import ImportJob, ImportOutcome, ImportRequest
    from ...batch.job_summary import JobSummary

EXIT_REFUSED = 2

app = typer.Typer(
    no_args_is_help=True,
    help="Import clusters and bot-or-not scores as versions: compare, activate, take back, clean.",
)

Kind = Annotated[str, typer.Argument(metavar="KIND", help="cluster or bot-or-not.", show_default=False)]
TableOption = Annotated[
    str | None, typer.Option("--table", help="The fan identity table: dynamodb://name?region=….", show_default=False)
]
CacheOption = Annotated[
    str | None, typer.Option("--cache", help="ARM cache: redis://host/0, rediss://….", show_default=False)
]
LettersOption = Annotated[
    str | None, typer.Option("--dead-letters", help="Where bad rows go: dynamodb://name.", show_default=False)
]
_DEFAULTS = Thresholds()


def _share(what: str, default: float) -> Any:
    said = f"Refuse where a greater share of {what}; {default:g} unless given."
    return typer.Option(min=0.0, max=1.0, help=said, show_default=False)


@app.command()
def start(
    context: typer.Context,
    kind: Kind,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Parquet, CSV or JSONL (also .gz, .zst), or a folder of them; also s3://bucket/key, gs://bucket/key.",
            show_default=False,
        ),
    ],
    store: Store = None,
    table: TableOption = None,
    cache: CacheOption = None,
    dead_letters: LettersOption = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="parquet, csv or jsonl, where names do not tell.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="End after the comparison; nothing is written.")] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write the comparison as an HTML page to this file.", show_default=False)
    ] = None,
    summary: SummaryFile = None,
    max_bad: Annotated[float | None, _share("rows is bad", _DEFAULTS.bad)] = None,
    max_unknown: Annotated[float | None, _share("fans was never scored", _DEFAULTS.unknown)] = None,
    max_removed: Annotated[float | None, _share("the active version's fans is missing", _DEFAULTS.removed)] = None,
    max_arm_changes: Annotated[float | None, _share("scored fans changes ARM", _DEFAULTS.arm_changes)] = None,
    work: Annotated[
        str | None,
        typer.Option(help="Folder for intermediate files; s3:// or gs:// on a cluster.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import files: columns globalUserId, clusterId or bonScore, and updatedAt where there is one.

    The files are one complete version: a fan they do not name has no value in it. It is compared with the active one
    first; above a threshold nothing is written, and the command ends with exit code 2. Otherwise it becomes active in
    one step, and the scores and ARM cache of the fans it changes follow. Options of Beam itself follow after --.

    Examples:

      fan-identity imports start cluster clusters.parquet --store sqlite:///fans.db --dry-run --report clusters.html

      fan-identity imports start bot-or-not s3://bucket/scores/2026-11-26/ --table dynamodb://fanIdentity
      --cache redis://host/0 --dead-letters dynamodb://fanIdentityDeadLetters

      fan-identity imports start bot-or-not first.csv --store sqlite:///fans.db --max-unknown 1
    """
    from ..runner import stop_on_sigterm  # noqa: PLC0415 - imports Beam

    check_job_files(summary, report)
    began = now_ms()
    wanted = kind_named(kind)
    settings = load_settings(
        store=store,
        table=table,
        cache=cache,
        dead_letters=dead_letters,
        max_bad=max_bad,
        max_unknown=max_unknown,
        max_removed=max_removed,
        max_arm_changes=max_arm_changes,
        work=work,
    )
    if not dry_run and switched_off(settings, wanted, as_json=as_json):
        return
    request = replace(request_of(settings, wanted, inputs), format=file_format, dry_run=dry_run)
    with failure_told(f"imports {wanted}", summary, report), stop_on_sigterm():
        outcome = job_of(wanted, settings, context.obj or []).run(request)
    if summary is not None:
        write_job_files(_summary(outcome, settings, began, report), summary, None)
    tell(outcome, report, as_json=as_json)


def run_import(
    worker: str,
    beam_flags: list[str],
    source: str | None,
    file_format: str | None,
    store: str | None,
    table: str | None,
    cache: str | None,
    dead_letters: str | None,
    *,
    as_json: bool,
) -> None:
    """Runs an import by the reference's name of the job, from settings alone.

    Args:
        worker: ``startClusterImport`` or ``startBotOrNotImport``.
        beam_flags: what followed ``--``.
        source: a file or folder; the setting where None, as with those that follow.
        file_format: where names do not tell.
        store: all of those below.
        table: the fan identity table.
        cache: the ARM cache.
        dead_letters: where bad rows go.
        as_json: prints JSON.

    Raises:
        UsageError: there is no source; else as ``start``.
    """
    from ..runner import stop_on_sigterm  # noqa: PLC0415 - imports Beam

    settings = load_settings(store=store, table=table, cache=cache, dead_letters=dead_letters, source=source)
    if settings.source is None:
        raise UsageError(
            f"{worker} needs --source, such as --source s3://bucket/folder/ or file:///folder/file.parquet"
        )
    kind = kind_named(worker)
    if switched_off(settings, kind, as_json=as_json):
        return
    with stop_on_sigterm():
        request = replace(request_of(settings, kind, [settings.source]), format=file_format)
        outcome = job_of(kind, settings, beam_flags).run(request)
    tell(outcome, None, as_json=as_json)


def switched_off(settings: Settings, kind: ImportKind, *, as_json: bool = False) -> bool:
    """Whether an import's worker is switched off by its flag; then that is said. One that runs is not stopped."""
    if open_flags(settings.flags, settings.flags_default, settings.flags_folder).is_enabled(kind.worker):
        return False
    err.print(f"{kind.worker} is switched off by its flag")
    if as_json:
        print_json({"worker": kind.worker, "skipped": 1})
    return True


def request_of(settings: Settings, kind: ImportKind, addresses: Sequence[str]) -> "ImportRequest":
    """A request to import files, with the settings' thresholds and work folder."""
    from ...batch.import_job import ImportRequest  # noqa: PLC0415 - imports Beam

    thresholds = Thresholds(settings.max_bad, settings.max_unknown, settings.max_removed, settings.max_arm_changes)
    return ImportRequest(kind, addresses, thresholds=thresholds, work=settings.work)


def job_of(kind: ImportKind, settings: Settings, beam_flags: list[str]) -> "ImportJob":
    """The job of a kind on the tables of settings.

    Raises:
        UsageError: an address is missing or wrong, or a Beam option does not fit.
        BackendUnavailableError: a backend is out of reach.
    """
    from ...batch.import_job import ImportJob  # noqa: PLC0415
    from ..runner import parse_beam_flags  # noqa: PLC0415
    from .progress import progress_bar  # noqa: PLC0415

    options = parse_beam_flags(beam_flags, prism=settings.prism, job=f"fan-identity-{kind.worker.lower()}")
    return ImportJob(kind, Backends.of_tables(settings), options, progress_bar)


def tell(outcome: "ImportOutcome", report: Path | None, *, as_json: bool) -> None:
    """Says what became of an import, and ends the command with the code for it.

    Raises:
        typer.Exit: 2 where it was refused, 1 with dead letters.
    """
    from ...domain.import_summary import counted, headline, record_json  # noqa: PLC0415
    from .import_text import comparison_tables  # noqa: PLC0415

    record = outcome.record
    if report is not None:
        from ...batch.import_report import write_import_report  # noqa: PLC0415 - brings Jinja

        dry = outcome.result == "dryRun"
        write_import_report(report, record, refused=outcome.refused, dry_run=dry)
    if as_json:
        print_json(
            {
                **record_json(record),
                "result": outcome.result,
                "refused": outcome.refused,
                "deadLettered": outcome.dead_lettered,
                "followed": outcome.followed,
                "seconds": {step: round(seconds, 3) for step, seconds in outcome.seconds.items()},
            }
        )
    else:
        for line in headline(record):
            out.print(printable(line, 400), soft_wrap=True)
        out.print()
        out.print(*comparison_tables(record), sep="\n")
    if report is not None:
        err.print(f"report: {report}")
    if outcome.refused is not None:
        err.print(printable(f"refused: {outcome.refused}", 1_000), soft_wrap=True)
        raise typer.Exit(exit_code(outcome))
    err.print(_ending(outcome))
    if outcome.dead_lettered:
        letters = counted(outcome.dead_lettered, "bad row is a dead letter", "bad rows are dead letters")
        err.print(f"{letters}; see: fan-identity dead-letters list")
        raise typer.Exit(exit_code(outcome))


def _summary(outcome: "ImportOutcome", settings: Settings, began: int, report: Path | None) -> "JobSummary":
    from ...batch.job_summary import JobSummary, Outcome, shown_settings  # noqa: PLC0415 - imports Jinja
    from ...domain.import_summary import headline  # noqa: PLC0415

    record, compared = outcome.record, outcome.record.comparison
    ends = {"refused": Outcome.REFUSED, "dryRun": Outcome.DRY_RUN, "unchanged": Outcome.NOTHING}
    done = Outcome.DEAD_LETTERS if outcome.dead_lettered else Outcome.DONE
    return JobSummary(
        job=f"imports {record.kind}",
        started_at=began,
        outcome=ends.get(outcome.result, done),
        exit_code=exit_code(outcome),
        counts={
            "rows": compared.rows,
            **{f"dead_lettered.{reason}": number for reason, number in compared.bad.items()},
            "repeated": compared.repeated,
            "fans": compared.fans,
            "unknown": compared.unknown,
            "added": compared.added,
            "removed": compared.removed,
            "changed": compared.changed,
            "arm_changes": compared.arm_changes,
            "followed": outcome.followed,
        },
        settings={**shown_settings(settings), "version": record.version},
        notes=(*([outcome.refused] if outcome.refused else ()), *headline(record)),
        links={} if report is None else {"comparison": str(report)},
    )


def exit_code(outcome: "ImportOutcome") -> int:
    """What the command ends with."""
    if outcome.refused is not None:
        return EXIT_REFUSED
    return EXIT_DEAD_LETTERS if outcome.dead_lettered else 0


def _ending(outcome: "ImportOutcome") -> str:
    record = outcome.record
    match outcome.result:
        case "dryRun":
            return "dry run: nothing was written"
        case "unchanged":
            return f"the files say what the active version {record.replaced} says: nothing to do"
        case _:
            back = f"fan-identity imports rollback {record.kind}"
            return f"{record.version} is active, {outcome.followed:,} scores followed; take it back with: {back}"


def kind_named(text: str) -> ImportKind:
    """The kind of a name: its own, with or without hyphens, or the reference's name of its job.

    Raises:
        UsageError: there is none of that name.
    """
    plain = text.lower().replace("-", "").replace("_", "")
    for kind in ImportKind:
        if plain in (kind.value.lower(), kind.worker.lower()):
            return kind
    raise UsageError(f"there is no kind of import {text!r}; use cluster or bot-or-not")
