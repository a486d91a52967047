"""The ``fan-identity`` command."""

import errno
import os
import sys
import uuid
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ... import __version__
from ...io.errors import BackendUnavailableError, FanIdentityError
from ...io.logs import configure_logging, switch_debug_on_signal
from ...io.settings import load_settings
from . import (
    api_keys,
    audit,
    backfill,
    clusters,
    dead_letters,
    demo,
    doctor,
    fans,
    import_events,
    import_versions,
    imports,
    lambda_event,
    lookup,
    rescore,
    run,
    sandbox,
    schema,
    score,
    serve,
)
from .common import err, printable

_ERROR_CHARACTERS = 2_000

app = typer.Typer(
    name="fan-identity",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tells fans from bots during a ticket sale: activities in, scores out.

    Settings come from the environment (FAN_IDENTITY_STORE and so on), then from flags.

    Exit codes: 0 done; 1 finished with dead letters; 2 bad usage or settings; 3 a backend out of reach.

    Examples:

      fan-identity demo

      fan-identity score activities.jsonl --store sqlite:///fans.db

      fan-identity show fan-00042 --store sqlite:///fans.db
    """
    del version
    # Before Beam is imported, which logs what optional parts of it are missing.
    configure_logging(load_settings().log_level, "fan-identity", uuid.uuid4().hex)
    switch_debug_on_signal()


app.command()(demo.demo)
app.command()(score.score)
app.command()(run.run)
app.command()(backfill.backfill)
app.command()(rescore.rescore)
app.command("lambda")(lambda_event.answer_event)
app.command()(lookup.arm)
app.command()(lookup.show)
app.command()(lookup.dump)
app.command()(serve.serve)
app.command()(sandbox.sandbox)
app.command()(schema.schema)
app.command()(doctor.doctor)
app.command()(fans.erase)
app.command()(fans.export)
app.add_typer(dead_letters.app, name="dead-letters")
imports.app.command("list")(import_versions.list_versions)
imports.app.command()(import_versions.show)
imports.app.command()(import_versions.rollback)
imports.app.command()(import_versions.follow)
imports.app.command()(import_versions.clean)
imports.app.command("on-event")(import_events.on_event)
imports.app.command()(import_events.watch)
app.add_typer(imports.app, name="imports")
app.add_typer(clusters.app, name="clusters")
app.add_typer(api_keys.app, name="api-keys")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Runs the command line and exits; what follows ``--`` goes to Beam."""
    arguments = sys.argv[1:]
    beam_flags: list[str] = []
    if "--" in arguments:
        separator = arguments.index("--")
        arguments, beam_flags = arguments[:separator], arguments[separator + 1 :]
    try:
        code = app(arguments, obj=beam_flags, prog_name="fan-identity", standalone_mode=False)
        sys.stdout.flush()
    except FanIdentityError as error:
        _end(str(error), error.exit_code)
    except typer.TyperException as error:
        context: typer.Context | None = getattr(error, "ctx", None)
        message = error.format_message()
        if "\n" in message:  # a command group without a command: its help
            typer.echo(message, err=True)
            sys.exit(error.exit_code)
        _end(message if context is None else f"{message} (see {context.command_path} --help)", error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        # Python would write what is left once more when it ends.
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        if error.errno == errno.EPIPE:
            sys.exit(1)  # as Typer ends where the reader of a pipe went away
        _end(f"standard output cannot be written: {error.strerror}", BackendUnavailableError.exit_code)
    sys.exit(code)


def _end(message: str, code: int) -> NoReturn:
    err.print(printable(f"error: {message}", _ERROR_CHARACTERS), soft_wrap=True)
    sys.exit(code)
