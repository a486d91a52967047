"""What a job leaves for its scheduler and for who looks at it in the morning: ``--summary`` and ``--report``."""

import contextlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...io.clock import now_ms
from ...io.errors import FanIdentityError, UsageError
from ...io.whole_files import check_writable
from .common import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from ...batch.job_summary import JobSummary

SummaryFile = Annotated[
    Path | None, typer.Option("--summary", help="Write what the job did as JSON to this file.", show_default=False)
]
ReportFile = Annotated[
    Path | None, typer.Option("--report", help="Write what the job did as an HTML page.", show_default=False)
]


def check_job_files(summary: Path | None, report: Path | None) -> None:
    """Says early, before a long run, that a file cannot be written.

    Raises:
        UsageError: names the option.
    """
    for path, setting in ((summary, "summary"), (report, "report")):
        if path is not None:
            check_writable(path, setting)


def write_job_files(job: "JobSummary", summary: Path | None, report: Path | None) -> None:
    """Writes the files that are asked for.

    Raises:
        UsageError: one cannot be written; names the option.
    """
    if summary is not None:
        job.write_json(summary)
    if report is not None:
        job.write_html(report)


@contextmanager
def failure_told(job: str, summary: Path | None, report: Path | None) -> Generator[None]:
    """Where the block fails, writes that into the files: what an earlier run left there would pass for this one's.

    Args:
        job: as ``JobSummary`` names it.
        summary: the files that are asked for; one that cannot be written does not hide why the block failed.
        report: likewise.

    Raises:
        FanIdentityError, KeyboardInterrupt: what the block raises.
    """
    if summary is None and report is None:
        yield
        return
    from ...batch.job_summary import JobSummary, Outcome  # noqa: PLC0415 - imports Jinja

    started_at = now_ms()
    told: JobSummary | None = None
    try:
        yield
    except FanIdentityError as error:
        ended = Outcome.REFUSED if error.exit_code == UsageError.exit_code else Outcome.FAILED
        told = JobSummary(job, started_at, ended, error.exit_code, notes=(str(error),))
        raise
    except KeyboardInterrupt:
        told = JobSummary(job, started_at, Outcome.INTERRUPTED, EXIT_INTERRUPTED)
        raise
    finally:
        if told is not None:
            for files in ((summary, None), (None, report)):
                with contextlib.suppress(UsageError):
                    write_job_files(told, *files)
