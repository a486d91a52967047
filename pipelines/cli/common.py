"""What the commands share: their common options, how they print, and how they end."""

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...domain.ledger import Ledger
from ...io.errors import UsageError
from ...io.file_ranges import FileFormat

EXIT_DEAD_LETTERS: Final = 1
EXIT_INTERRUPTED: Final = 130  # as a shell reports a command ended by Ctrl-C

Store = Annotated[
    str | None,
    typer.Option(
        help="SQLite file for queue, table, cache and dead letters together: sqlite:///file.db.",
        envvar="FAN_IDENTITY_STORE",
        show_default=False,
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        help="Answer Prometheus at this port, or the next free one; 0 for any.", min=0, max=65_535, show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="jsonl, csv, parquet or access-log, where the name does not tell.", show_default=False
    ),
]
Horizon = Annotated[
    str | None,
    typer.Option(help="Reject activities older than this, such as 7d, 12h or 30m.", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option(help="Another scorecard: file:///folder/scorecard.json.", show_default=False),
]

_PIPED_COLUMNS = 160  # wide enough for every table; a terminal's own width counts where there is one
out = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PIPED_COLUMNS)
# Never folded: what is said here are single lines, with paths in them to copy.
err = Console(
    file=sys.stderr,
    highlight=False,
    markup=False,
    soft_wrap=True,
    width=None if sys.stderr.isatty() else _PIPED_COLUMNS,
)


def print_json(value: Any) -> None:
    """Writes one JSON value and a newline to standard output, whatever the console is."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")


def printable(text: str, limit: int = 80) -> Text:
    """Text from outside as it may be shown: control characters escaped, no console markup, cut at ``limit``."""
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return Text(escaped if len(escaped) <= limit else f"{escaped[: limit - 1]}…")


def parse_format(text: str | None) -> FileFormat | None:
    """Reads ``--format``; None where it is not given.

    Raises:
        UsageError: there is no such format.
    """
    if text is None:
        return None
    try:
        return FileFormat(text)
    except ValueError:
        raise UsageError(f"--format: one of {', '.join(FileFormat)}") from None


def ledger_rows(ledger: Ledger) -> Iterable[tuple[str, int]]:
    """The books as lines for people: what came in, what became of it."""
    yield "read", ledger.read
    if ledger.waiting_before:
        yield "waiting from an earlier run", ledger.waiting_before
    yield "rejected", ledger.total_rejected
    for reason, number in ledger.rejected.items():
        yield f"  {reason}", number
    yield "deduplicated", ledger.deduplicated
    yield "scored", ledger.scored
    yield "dead-lettered", ledger.total_dead_lettered
    for reason, number in ledger.dead_lettered.items():
        yield f"  {reason}", number
    if ledger.waiting_after:
        yield "still waiting", ledger.waiting_after
    if ledger.skipped:
        yield "pauses, switched off by its flag", ledger.skipped


def heading(text: str) -> Text:
    """The line above a table. Not the table's own title, which would be folded to the table's width."""
    return Text(text, style="bold")


def two_columns(rows: Iterable[tuple[str, object]]) -> Table:
    """A table of names and right-aligned numbers."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(Text(name), Text(f"{value:,}" if isinstance(value, int) else str(value)))
    return table


def arm_table(distribution: Mapping[int, int]) -> Table:
    """Users by ARM, with their share."""
    users = sum(distribution.values())
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 2))
    for justify in ("left", "right", "right"):
        table.add_column(justify=justify)
    for arm, number in distribution.items():
        table.add_row(f"ARM {arm}", f"{number:,}", f"{number / max(users, 1):.1%}")
    return table


def ledger_json(ledger: Ledger) -> dict[str, Any]:
    """The books as JSON values."""
    return {
        "read": ledger.read,
        "waitingBefore": ledger.waiting_before,
        "rejected": dict(ledger.rejected),
        "rejectedTotal": ledger.total_rejected,
        "deduplicated": ledger.deduplicated,
        "enqueued": ledger.enqueued,
        "scored": ledger.scored,
        "deadLettered": dict(ledger.dead_lettered),
        "deadLetteredTotal": ledger.total_dead_lettered,
        "waitingAfter": ledger.waiting_after,
        "unaccounted": ledger.unaccounted,
        "skipped": ledger.skipped,
    }


def finish(ledger: Ledger, *, interrupted: bool, dead_letters_hint: str) -> None:
    """Ends a bounded run: says what is not done, and exits with the code for it.

    Raises:
        typer.Exit: 1 with dead letters or with books that do not balance, 130 where the run was interrupted.
    """
    if ledger.unaccounted:
        err.print(f"error: {ledger.unaccounted} records are unaccounted for: this is a defect of fan-identity")
        raise typer.Exit(EXIT_DEAD_LETTERS)
    if interrupted:
        err.print(f"stopped: {ledger.waiting_after:,} messages wait in the queue; run the same command again to finish")
        raise typer.Exit(EXIT_INTERRUPTED)
    if ledger.total_dead_lettered:
        err.print(f"{ledger.total_dead_lettered:,} dead letters; look at them with: {dead_letters_hint}")
        raise typer.Exit(EXIT_DEAD_LETTERS)
