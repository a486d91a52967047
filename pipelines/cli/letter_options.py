"""Options of the commands that look for dead letters, and what they mean."""

from typing import Annotated

import typer

from ...domain.dead_letters import LetterFilter
from ...io.backends import open_dead_letters
from ...io.errors import UsageError
from ...io.ports import DeadLetterArchive, StoredDeadLetter
from ...io.settings import load_settings
from ...io.sqlite.dead_letters import SqliteDeadLetters
from .lookup import existing_store
from .option_values import time_option

Letters = Annotated[
    str | None,
    typer.Option(
        "--dead-letters",
        help="Their address, where there is no store: dynamodb://table.",
        show_default=False,
    ),
]
Worker = Annotated[str | None, typer.Option(help="Only of this worker.", show_default=False)]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only with this reason.", show_default=False)]
ErrorOption = Annotated[
    str | None, typer.Option("--error", help="Only where the error contains this text.", show_default=False)
]
Since = Annotated[str | None, typer.Option(help="Only first written at this time or later.", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Only first written before this time.", show_default=False)]
CodeVersion = Annotated[
    str | None,
    typer.Option(help="Only last written by this version of the program, such as 0.1.0.", show_default=False),
]

Activity = Annotated[str | None, typer.Option(help="Only of the activity with this id.", show_default=False)]


def letter_filter(
    worker: str | None,
    reason: str | None,
    error: str | None,
    since: str | None,
    until: str | None,
    code_version: str | None,
    activity: str | None,
    *,
    waiting_only: bool,
) -> LetterFilter:
    """The letters that options mean.

    Raises:
        UsageError: a time is none.
    """
    since_ms, until_ms = time_option("--since", since), time_option("--until", until)
    return LetterFilter(
        worker, reason, error, since_ms, until_ms, code_version, waiting_only=waiting_only, activity_id=activity
    )


def opened_archive(store: str | None, dead_letters: str | None) -> DeadLetterArchive:
    """The dead letters of an address of their own, as workers write them; else of a store.

    Raises:
        UsageError: there is no such store, or the address is none.
    """
    address = load_settings(dead_letters=dead_letters).dead_letters
    if address is None:
        return SqliteDeadLetters(existing_store(store))
    return open_dead_letters(address)


def one_letter(letters: DeadLetterArchive, letter_id: str) -> StoredDeadLetter:
    """The letter of an id or of how it begins.

    Raises:
        UsageError: there is none, or several begin so.
    """
    stored = letters.get(letter_id)
    if stored is None:
        raise UsageError("no dead letter has that id, or several begin with it; list them with: dead-letters list")
    return stored
