"""``fan-identity score``: files in, scores out, on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...domain.activity import MalformedRecordError, parse_time_ms
from ...io.backends import Backends
from ...io.errors import UsageError
from ...io.file_ranges import FileFormat
from ...io.settings import load_settings
from ...io.whole_files import check_writable
from .common import (
    AsJson,
    Format,
    Horizon,
    Model,
    Store,
    arm_table,
    err,
    finish,
    heading,
    ledger_json,
    ledger_rows,
    out,
    parse_format,
    print_json,
    two_columns,
)
from .progress import progress_bar

if TYPE_CHECKING:
    from ...batch.weak_label import WeakLabelReport


def score(
    context: typer.Context,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files to score.", show_default=False)],
    store: Store = None,
    file_format: Format = None,
    horizon: Horizon = None,
    as_of: Annotated[
        str | None,
        typer.Option(help="The time to hold activities against, ISO 8601; now unless given.", show_default=False),
    ] = None,
    model: Model = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report with plots to this file.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score files of activities: JSONL, CSV, Parquet, or a web server's access log.

    Reads every record, queues it in order per user, builds the user's profile as of that moment, scores it and
    stores the score. Scoring the same file again changes nothing. Options of Beam itself follow after --.

    Examples:

      fan-identity score activities.jsonl --store sqlite:///fans.db

      fan-identity score access.log --store sqlite:///fans.db --report report.html

      fan-identity score day1.parquet day2.parquet --store sqlite:///fans.db --json

      fan-identity score big.jsonl --store sqlite:///fans.db -- --direct_num_workers=2
      --direct_running_mode=multi_processing
    """
    settings = load_settings(store=store, model=model, horizon=horizon)
    # Beam takes a second to import: only where it is needed.
    from ...batch.report import write_report  # noqa: PLC0415
    from ...batch.score_files import score_files  # noqa: PLC0415
    from ...batch.summary import arm_distribution, summarize  # noqa: PLC0415
    from ...io.files import plan_ranges  # noqa: PLC0415
    from ..enqueue import RulesOfNow  # noqa: PLC0415
    from ..runner import drain_on_signal, parse_beam_flags  # noqa: PLC0415

    backends = Backends.of(settings)
    options = parse_beam_flags(context.obj or [], prism=settings.prism)
    backends.open_model()
    if report is not None:
        check_writable(report, "report")
    ranges = plan_ranges(inputs, parse_format(file_format))
    rules = RulesOfNow(
        horizon_ms=None if settings.horizon is None else int(settings.horizon.total_seconds() * 1_000),
        internal_accounts=settings.internal_accounts,
        as_of_ms=_time(as_of),
    )
    with drain_on_signal():
        run = score_files(ranges, rules, backends, options, batch_size=settings.batch_size, watch=progress_bar)
    arms = arm_distribution(backends)
    logs = sorted({item.path for item in ranges if item.format is FileFormat.ACCESS_LOG})
    # Every user's latest item is held in memory only where something is made of it.
    summary = summarize(backends) if logs or report is not None else None
    weak_label = None
    if summary is not None and logs and not run.interrupted:
        from ...batch.weak_label import evaluate_access_log  # noqa: PLC0415

        weak_label = evaluate_access_log(logs, summary.bon_scores)
    if summary is not None and report is not None:
        write_report(report, run, summary, weak_label=weak_label)
    if as_json:
        print_json(
            {
                **ledger_json(run.ledger),
                "seconds": round(run.enqueue_seconds + run.score_seconds, 3),
                "enqueueSeconds": round(run.enqueue_seconds, 3),
                "scoreSeconds": round(run.score_seconds, 3),
                "eventsPerSecond": round(run.events_per_second, 1),
                "users": sum(arms.values()),
                "armDistribution": {str(arm): users for arm, users in arms.items()},
                "weakLabel": weak_label,
            }
        )
    else:
        rows = [*ledger_rows(run.ledger), ("events/s", f"{run.events_per_second:,.0f}")]
        out.print(heading("Records"), two_columns(rows))
        out.print()
        out.print(heading("Users by ARM, account risk from 1 to 5"), arm_table(arms))
        if weak_label is not None:
            out.print()
            _print_weak_label(weak_label)
        if report is not None:
            err.print(f"report: {report}")
    finish(
        run.ledger,
        interrupted=run.interrupted,
        dead_letters_hint=f"fan-identity dead-letters list --store {settings.store}",
    )


def _time(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_time_ms(text)
    except MalformedRecordError:
        raise UsageError("--as-of: write a time as 2024-06-14T10:00:00Z") from None


def _print_weak_label(report: "WeakLabelReport") -> None:
    out.print(heading("Scores against crawlers that name themselves (a weak label, hidden from the model)"))
    rows: list[tuple[str, object]] = [
        ("users with a score", report.users),
        ("  of them crawlers by their own name", report.crawlers),
        ("ROC AUC of the scores", _auc(report.auc)),
        ("  of requests per minute alone", _auc(report.auc_requests_per_minute)),
        ("  of a constant", _auc(report.auc_constant)),
    ]
    out.print(two_columns(rows))


def _auc(value: float | None) -> str:
    return "none: all users have one label" if value is None else f"{value:.3f}"
