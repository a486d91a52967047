"""``fan-identity audit``: what operators did, and whether the log of it was tampered with."""

from typing import Annotated

import msgspec
import typer
from rich.table import Table

from ...domain.activity import format_time_ms
from ...domain.audit import Verdict
from ...io.audit import AuditLog
from ...io.backends import operations_address
from ...io.errors import UsageError
from ...io.settings import load_settings
from .common import EXIT_DEAD_LETTERS, AsJson, Store, err, out, print_json, printable
from .lookup import existing_store
from .progress import progress_bar

app = typer.Typer(no_args_is_help=True, help="List and verify the log of operators' actions.")

Operations = Annotated[
    str | None,
    typer.Option(help="The operations table, where there is no store: dynamodb://table.", show_default=False),
]
_HASH_DIGITS = 64


@app.command("list")
def list_lines(
    store: Store = None,
    operations: Operations = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to list, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List actions, the newest line first.

    Examples:

      fan-identity audit list --store sqlite:///fans.db

      fan-identity audit list --operations dynamodb://fanIdentityOperations --json
    """
    log = _opened(store, operations)
    lines = log.newest(None, limit)
    if as_json:
        for line in lines:
            print_json({**msgspec.to_builtins(line), "at": format_time_ms(line.at)})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("line", "at (UTC)", "subject", "action", "target", "outcome", "details", "hash"):
        table.add_column(column, no_wrap=column != "details", justify="right" if column == "line" else "left")
    for line in lines:
        details = ", ".join(f"{name} {value}" for name, value in sorted(line.details.items()) if name != "process")
        table.add_row(
            str(line.seq),
            format_time_ms(line.at)[:19],
            printable(line.subject, 40),
            printable(line.action, 30),
            printable(line.target, 40),
            line.outcome,
            printable(details, 120),
            line.hash[:12],
        )
    out.print(table)


@app.command()
def verify(
    store: Store = None,
    operations: Operations = None,
    head: Annotated[
        str | None,
        typer.Option(help="A hash that was the head once, noted elsewhere: it must be in the log.", show_default=False),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=0, help="How many lines there were; with --head, its line's number.", show_default=False),
    ] = None,
    keyed_from: Annotated[int, typer.Option(min=1, help="With a key: the first line that has to be made with it.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Check every line's hash and that each follows the one before; say the first that does not.

    Changed, removed, inserted and reordered lines are found. What was cut off the end is found by a head noted
    elsewhere: each new head is in the log of the server that wrote it. Lines written anew from some line on are found
    by such a head too, and by the key of FAN_IDENTITY_AUDIT_KEY where the log is written with one.

    Exit codes: 0 the log is whole; 1 it is broken; 2 bad usage; 3 a backend out of reach.

    Examples:

      fan-identity audit verify --store sqlite:///fans.db

      fan-identity audit verify --operations dynamodb://fanIdentityOperations --head 5d41…c592 --count 1207 --json
    """
    if head is not None and (len(head) != _HASH_DIGITS or set(head) - set("0123456789abcdef")):
        raise UsageError(f"--head: a hash of {_HASH_DIGITS} hexadecimal digits, as audit list --json shows it")
    log = _opened(store, operations)
    read = 0

    def told(number: int) -> None:
        nonlocal read
        read = number

    with progress_bar("verify", log.size(), lambda: read):
        verdict = log.verify(told, head=head, count=count, keyed_from=keyed_from)
    if as_json:
        print_json({"whole": verdict.whole, **msgspec.to_builtins(verdict)})
    else:
        _show(verdict)
    if log.has_key and verdict.unkeyed:
        err.print(f"lines 1 to {verdict.unkeyed:,} are older than the key, and not protected by it")
    if not verdict.whole:
        raise typer.Exit(EXIT_DEAD_LETTERS)


def _show(verdict: Verdict) -> None:
    if verdict.whole:
        out.print(f"whole: {verdict.lines:,} lines, head {verdict.head}")
        return
    err.print(f"BROKEN at line {verdict.seq}: {verdict.fault}")
    err.print(f"whole up to line {verdict.lines:,}, whose hash is {verdict.head}")


def _opened(store: str | None, operations: str | None) -> AuditLog:
    """The audit log of the settings; a store that does not exist is not made.

    Raises:
        UsageError: nothing says where it is.
    """
    settings = load_settings(store=store, operations=operations)
    if settings.operations is None and settings.store is not None:
        existing_store(store).connection  # noqa: B018 - opening it says that there is none
    return AuditLog.of(operations_address(settings))
