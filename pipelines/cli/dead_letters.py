"""``fan-identity dead-letters``: what could not be processed, and sending it again."""

import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from ...domain.activity import format_time_ms
from ...io.ports import StoredDeadLetter
from . import redrive
from .common import AsJson, Store, err, out, print_json, printable
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

app = typer.Typer(no_args_is_help=True, help="List, show and redrive records that could not be processed.")


@app.command("list")
def list_letters(
    store: Store = None,
    dead_letters: Letters = None,
    worker: Worker = None,
    reason: ReasonOption = None,
    error: ErrorOption = None,
    since: Since = None,
    until: Until = None,
    code_version: CodeVersion = None,
    activity: Activity = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that were sent again.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many to list, oldest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first.

    Examples:

      fan-identity dead-letters list --store sqlite:///fans.db

      fan-identity dead-letters list --store sqlite:///fans.db --reason malformed --json

      fan-identity dead-letters list --store sqlite:///fans.db --error timeout --since 2026-11-27T00:00:00Z
    """
    letters = opened_archive(store, dead_letters)
    where = letter_filter(worker, reason, error, since, until, code_version, activity, waiting_only=not every)
    found = letters.select(where, limit=limit)
    if as_json:
        for stored in found:
            print_json(_summary(stored))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "written (UTC)", "worker", "reason", "attempts", "position", "error"):
        table.add_column(column, no_wrap=column != "error")
    for stored in found:
        letter = stored.letter
        table.add_row(
            letter.dead_letter_id[:12],
            format_time_ms(stored.written_at_ms),
            letter.worker,
            letter.reason,
            str(letter.attempts),
            printable(letter.position),
            printable(letter.error, 60),
        )
    out.print(table)
    total = letters.count(where)
    if total > len(found):
        err.print(f"{len(found):,} of {total:,}; --limit shows more")


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The letter's id, or how it begins.")],
    store: Store = None,
    dead_letters: Letters = None,
    as_json: AsJson = False,
    raw: Annotated[bool, typer.Option("--raw", help="Write only the original bytes, exactly.")] = False,
) -> None:
    """Show one dead letter with its original bytes and every attempt to send it again.

    Examples:

      fan-identity dead-letters show 3f2a --store sqlite:///fans.db

      fan-identity dead-letters show 3f2a --store sqlite:///fans.db --raw > record.json
    """
    letters = opened_archive(store, dead_letters)
    stored = one_letter(letters, letter_id)
    letter = stored.letter
    if raw:
        sys.stdout.buffer.write(letter.payload)
        sys.stdout.buffer.flush()
        return
    history = letters.history(letter.dead_letter_id)
    if as_json:
        tried = [{**msgspec.to_builtins(attempt), "at": format_time_ms(attempt.at)} for attempt in history]
        # JSON has no bytes: msgspec writes them in base64.
        print_json({**_summary(stored), "stack": letter.stack, "history": tried, "payloadBase64": letter.payload})
        return
    for name, value in _summary(stored).items():
        out.print(printable(f"{name:>14}  {value}", 400), soft_wrap=True)
    for attempt in history:
        said = f"{format_time_ms(attempt.at)}  {attempt.outcome}  {attempt.error}".rstrip()
        out.print(printable(f"{'attempt':>14}  {said}  ({attempt.code_version}, {attempt.request_id})", 400))
    if letter.stack:
        out.print(printable(f"{'stack':>14}  {letter.stack}", 4_000), soft_wrap=True)
    out.print(printable(f"{'payload':>14}  {letter.payload.decode(errors='backslashreplace')}", 2_000), soft_wrap=True)


app.command()(redrive.redrive)


def _summary(stored: StoredDeadLetter) -> dict[str, Any]:
    letter = msgspec.to_builtins(stored.letter, builtin_types=(bytes,))
    for left_out in ("payload", "stack"):
        del letter[left_out]
    redriven = stored.redriven_at_ms
    return {
        **letter,
        "payloadBytes": len(stored.letter.payload),
        "writtenAt": format_time_ms(stored.written_at_ms),
        "redrivenAt": None if redriven is None else format_time_ms(redriven),
    }
