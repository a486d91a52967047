"""``fan-identity doctor``: what is here, what is reachable, and what is known not to work."""

import platform
import sqlite3
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Literal

import typer
from rich.text import Text

from ...io.backends import Backends, open_model, sqlite_store
from ...io.errors import BackendUnavailableError, FanIdentityError
from ...io.settings import load_settings
from .common import AsJson, Model, Store, out, print_json

Status = Literal["ok", "warning", "failed"]
_MARKS: dict[Status, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warning": ("note", "yellow"),
    "failed": ("FAILED", "red"),
}
_FIRST_GOOD_BEAM = (2, 76)  # before it checkpoints of unbounded sources grow without limit
_FIRST_GOOD_SQLITE = (3, 35, 0)  # DELETE … RETURNING


def doctor(store: Store = None, model: Model = None, as_json: AsJson = False) -> None:
    """Check versions, runners, the model and the store; exit 3 where a backend is out of reach.

    Examples:

      fan-identity doctor

      fan-identity doctor --store sqlite:///fans.db --json
    """
    settings = load_settings(store=store, model=model)
    address = settings.store
    checks: list[tuple[str, Callable[[], tuple[Status, str]]]] = [
        ("Python", _python),
        ("SQLite", _sqlite),
        ("Apache Beam", _beam),
        ("runner DirectRunner", lambda: ("ok", "in this process, batch and streaming")),
        ("runner PrismRunner", lambda: _prism(settings.prism)),
        ("model", lambda: ("ok", open_model(settings.model).scorecard.model_version)),
    ]
    if address is not None:
        checks.append(("store", lambda: _store(address)))
        checks.append(("queue", lambda: ("ok", f"{Backends.of(settings).open_queue().depth():,} messages")))
    results = [(name, *_run(check)) for name, check in checks]
    if as_json:
        print_json([{"check": name, "status": status, "detail": detail} for name, status, detail, _ in results])
    else:
        for name, status, detail, _ in results:
            mark, colour = _MARKS[status]
            out.print(Text(f"{mark:>7} ", style=colour).append(f" {name}: {detail}", style="default"), soft_wrap=True)
    codes = [code for _, _, _, code in results if code]
    if codes:
        raise typer.Exit(max(codes))


def _run(check: Callable[[], tuple[Status, str]]) -> tuple[Status, str, int]:
    try:
        status, detail = check()
    except FanIdentityError as error:
        return "failed", str(error), error.exit_code
    return status, detail, BackendUnavailableError.exit_code if status == "failed" else 0


def _python() -> tuple[Status, str]:
    return "ok", f"{platform.python_version()} ({sys.platform})"


def _sqlite() -> tuple[Status, str]:
    if sqlite3.sqlite_version_info < _FIRST_GOOD_SQLITE:
        return "failed", f"{sqlite3.sqlite_version} is too old; {'.'.join(map(str, _FIRST_GOOD_SQLITE))} is needed"
    return "ok", sqlite3.sqlite_version


def _beam() -> tuple[Status, str]:
    text = version("apache-beam")
    major, minor = (int(part) for part in text.split(".")[:2])
    if (major, minor) < _FIRST_GOOD_BEAM:
        return "failed", f"{text}: streaming checkpoints grow without limit before 2.76; install a newer one"
    return "ok", text


def _prism(setting: str | None) -> tuple[Status, str]:
    from ..runner import find_prism  # noqa: PLC0415 - imports Beam

    try:
        return "ok", find_prism(setting)
    except FanIdentityError as error:
        return "warning", f"{error} (only needed for -- --runner=PrismRunner)"


def _store(address: str) -> tuple[Status, str]:
    store = sqlite_store(address, "store")
    existed = store.path.exists()
    with store.transaction() as connection:
        connection.execute("SELECT count(*) FROM positions")
    return "ok", f"{store.path} is writable" + ("" if existed else " (made now)")
