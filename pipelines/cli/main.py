"""The ``fan-identity`` command."""

import sys
import uuid
from typing import Annotated

import typer

from ... import __version__
from ...io.errors import FanIdentityError
from ...io.logs import configure_logging
from ...io.settings import load_settings
from . import dead_letters, demo, doctor, lookup, run, score
from .common import err, printable

_ERROR_CHARACTERS = 2_000

app = typer.Typer(
    name="fan-identity",
    help="Tells fans from bots during a ticket sale.",
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


app.command()(demo.demo)
app.command()(score.score)
app.command()(run.run)
app.command()(lookup.arm)
app.command()(lookup.show)
app.command()(lookup.dump)
app.command()(doctor.doctor)
app.add_typer(dead_letters.app, name="dead-letters")


def main() -> None:
    """Runs the command line and exits; what follows ``--`` goes to Beam."""
    arguments = sys.argv[1:]
    beam_flags: list[str] = []
    if "--" in arguments:
        separator = arguments.index("--")
        arguments, beam_flags = arguments[:separator], arguments[separator + 1 :]
    try:
        app(arguments, obj=beam_flags, prog_name="fan-identity")
    except FanIdentityError as error:
        err.print(printable(f"error: {error}", _ERROR_CHARACTERS), soft_wrap=True)
        sys.exit(error.exit_code)
