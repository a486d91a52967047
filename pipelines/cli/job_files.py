"""What a job leaves for its scheduler and for who looks at it in the morning: ``--summary`` and ``--report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...io.whole_files import check_writable

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
