"""``fan-identity dead-letters``: what could not be processed, and sending it again."""

import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from ...domain.activity import format_time_ms
from ...io.backends import Backends, open_dead_letters
from ...io.errors import UsageError
from ...io.ports import DeadLetterArchive, StoredDeadLetter
from ...io.settings import load_settings
from ...io.sqlite.dead_letters import SqliteDeadLetters
from .common import EXIT_DEAD_LETTERS, AsJson, Store, err, out, print_json, printable
from .lookup import existing_store

app = typer.Typer(no_args_is_help=True, help="List, show and redrive records that could not be processed.")

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


@app.command("list")
def list_letters(
    store: Store = None,
    dead_letters: Letters = None,
    worker: Worker = None,
    reason: ReasonOption = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that were sent again.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many to list, oldest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first.

    Examples:

      fan-identity dead-letters list --store sqlite:///fans.db

      fan-identity dead-letters list --store sqlite:///fans.db --reason malformed --json
    """
    letters = _archive(store, dead_letters)
    found = letters.select(worker=worker, reason=reason, waiting_only=not every, limit=limit)
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
    total = letters.count(worker=worker, reason=reason, waiting_only=not every)
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
    """Show one dead letter with its original bytes.

    Examples:

      fan-identity dead-letters show 3f2a --store sqlite:///fans.db

      fan-identity dead-letters show 3f2a --store sqlite:///fans.db --raw > record.json
    """
    stored = _one(_archive(store, dead_letters), letter_id)
    letter = stored.letter
    if raw:
        sys.stdout.buffer.write(letter.payload)
        sys.stdout.buffer.flush()
        return
    if as_json:
        # JSON has no bytes: msgspec writes them in base64.
        print_json({**_summary(stored), "stack": letter.stack, "payloadBase64": letter.payload})
        return
    for name, value in _summary(stored).items():
        out.print(printable(f"{name:>14}  {value}", 400), soft_wrap=True)
    if letter.stack:
        out.print(printable(f"{'stack':>14}  {letter.stack}", 4_000), soft_wrap=True)
    out.print(printable(f"{'payload':>14}  {letter.payload.decode(errors='backslashreplace')}", 2_000), soft_wrap=True)


@app.command()
def redrive(
    letter_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One letter; all that match else.")] = None,
    store: Store = None,
    dead_letters: Letters = None,
    worker: Worker = None,
    reason: ReasonOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, to where they came from; then run scoreUsers.

    What fails again stays a dead letter with one more attempt.

    Examples:

      fan-identity dead-letters redrive --store sqlite:///fans.db --reason too_many_receives

      fan-identity dead-letters redrive 3f2a --store sqlite:///fans.db

      fan-identity dead-letters redrive --dead-letters dynamodb://fanIdentityDeadLetters
    """
    from ...batch.redrive import redrive as send_again  # noqa: PLC0415 - imports Beam
    from ..enqueue import RulesOfNow  # noqa: PLC0415

    opened = _archive(store, dead_letters)
    letters = opened.select(worker=worker, reason=reason) if letter_id is None else [_one(opened, letter_id)]
    if dry_run:
        if as_json:
            print_json({"wouldRedrive": len(letters)})
        else:
            out.print(f"{len(letters):,} dead letters would be sent again")
        return
    settings = load_settings(store=store, dead_letters=dead_letters)
    rules = RulesOfNow(internal_accounts=settings.internal_accounts)()
    result = send_again(letters, rules, lambda name: Backends.of(settings, name))
    if as_json:
        print_json({"queued": result.queued, "rejected": result.rejected, "failed": result.failed})
    else:
        out.print(f"{result.queued:,} queued, {result.rejected:,} rejected, {result.failed:,} failed again")
    if result.queued:
        where = f" --store {settings.store}" if settings.store else ""
        err.print(f"score them with: fan-identity run scoreUsers{where}")
    if result.failed:
        raise typer.Exit(EXIT_DEAD_LETTERS)


def _archive(store: str | None, dead_letters: str | None) -> DeadLetterArchive:
    address = load_settings(dead_letters=dead_letters).dead_letters
    if address is None or store is not None:
        return SqliteDeadLetters(existing_store(store))
    return open_dead_letters(address)


def _one(letters: DeadLetterArchive, letter_id: str) -> StoredDeadLetter:
    stored = letters.get(letter_id)
    if stored is None:
        raise UsageError("no dead letter has that id, or several begin with it; list them with: dead-letters list")
    return stored


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
