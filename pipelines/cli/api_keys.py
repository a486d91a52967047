"""``fan-identity api-keys``: who may ask without a token, what, and how often."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ...io.errors import UsageError
from ...serving.api_keys import KNOWN_SCOPES, create_key, read_keys, revoke_key
from .common import AsJson, err, out, print_json, printable

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke the API keys of the API.")

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="The file of keys, which holds their hashes only.",
        envvar="FAN_IDENTITY_API_KEYS",
        show_default=False,
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whom the key is for.", show_default=False)]


@app.command()
def create(
    name: Name,
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"What it allows, once or more: {', '.join(KNOWN_SCOPES)}.", show_default=False),
    ] = None,
    per_minute: Annotated[int, typer.Option(help="How many requests a minute, by their cost.")] = 600,
    file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: once, since only its hash is stored.

    The file is made where there is none; only its owner may read it. Running services take
    the key within a second. Callers send it as x-api-key.

    Examples:

      fan-identity api-keys create box-office --scope fanscore:read --per-minute 600 --file keys.jsonl

      FAN_IDENTITY_API_KEYS=keys.jsonl fan-identity api-keys create dashboard --json
    """
    path = _path(file)
    key = create_key(path, name, scope or [], per_minute)
    if as_json:
        print_json({"name": name, "key": key})
        return
    typer.echo(key)
    err.print(f"shown this once: only its hash is stored, in {printable(str(path), 400)}")


@app.command("list")
def list_keys(file: KeyFile = None, as_json: AsJson = False) -> None:
    """List keys by name, with what they allow; the keys themselves are stored nowhere.

    Examples:

      fan-identity api-keys list --file keys.jsonl

      fan-identity api-keys list --file keys.jsonl --json
    """
    keys = read_keys(_path(file))
    if as_json:
        for key in keys:
            print_json({"name": key.name, "scopes": sorted(key.scopes), "perMinute": key.per_minute})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "scopes", "per minute"):
        table.add_column(column, no_wrap=True, justify="right" if column == "per minute" else "left")
    for key in keys:
        table.add_row(printable(key.name), printable(" ".join(sorted(key.scopes)) or "none"), f"{key.per_minute:,}")
    out.print(table)


@app.command()
def revoke(name: Name, file: KeyFile = None) -> None:
    """Take a key away; running services refuse it within a second.

    Examples:

      fan-identity api-keys revoke box-office --file keys.jsonl
    """
    revoke_key(_path(file), name)
    err.print(f"revoked: {name}")


def _path(file: Path | None) -> Path:
    if file is None:
        raise UsageError("--file: name the file of keys, or set FAN_IDENTITY_API_KEYS")
    return file
