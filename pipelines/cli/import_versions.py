"""``fan-identity imports list``, ``show``, ``rollback``, ``follow`` and ``clean``: the versions there are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ...domain.activity import format_time_ms
from ...domain.imports import ImportKind, State, VersionRecord
from ...io.backends import Backends
from ...io.errors import UsageError
from ...io.settings import load_settings
from ...io.whole_files import check_writable
from .common import AsJson, Store, err, out, print_json, printable
from .imports import CacheOption, Kind, TableOption, job_of, kind_named

if TYPE_CHECKING:
    from ...io.import_versions import ImportVersions


def list_versions(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="cluster or bot-or-not; both else.")] = None,
    store: Store = None,
    table: TableOption = None,
    as_json: AsJson = False,
) -> None:
    """List versions, the newest first.

    Examples:

      fan-identity imports list --store sqlite:///fans.db

      fan-identity imports list cluster --table dynamodb://fanIdentity --json
    """
    kinds = list(ImportKind) if kind is None else [kind_named(kind)]
    records = [record for each in kinds for record in _versions(each, store, table).records()]
    if as_json:
        from ...domain.import_summary import record_json  # noqa: PLC0415

        for record in records:
            print_json(record_json(record))
        return
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("version", "kind", "state", "fans", "ARM changes", "started (UTC)", "files"):
        shown.add_column(column, no_wrap=column != "files", justify="right" if column in ("fans",) else "left")
    for record in records:
        shown.add_row(
            record.version,
            record.kind.value,
            _state(record),
            f"{record.comparison.fans:,}",
            f"{record.comparison.arm_changes:,}",
            format_time_ms(record.started_at)[:19],
            printable(", ".join(record.files)),
        )
    out.print(shown)


def _state(record: VersionRecord) -> str:
    unfinished = record.state in (State.ACTIVE, State.ROLLED_BACK) and not record.followed
    return f"{record.state.value}, scores follow" if unfinished else record.state.value


def show(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version, as list shows it.")],
    store: Store = None,
    table: TableOption = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the comparison as an HTML page.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a version changed.

    Examples:

      fan-identity imports show 20261126T231500Z-1a2b3c4d --store sqlite:///fans.db --report version.html
    """
    from ...domain.import_summary import headline, record_json  # noqa: PLC0415
    from .import_text import comparison_tables  # noqa: PLC0415

    found = (_versions(kind, store, table).record(version) for kind in ImportKind)
    record = next((record for record in found if record is not None), None)
    if record is None:
        raise UsageError("there is no such version; see: fan-identity imports list")
    if report is not None:
        from ...batch.import_report import write_import_report  # noqa: PLC0415

        check_writable(report, "report")
        write_import_report(report, record, refused=None, dry_run=False)
        err.print(f"report: {report}")
    if as_json:
        print_json(record_json(record))
        return
    out.print(f"{record.version}  {record.kind}  {_state(record)}")
    for line in headline(record):
        out.print(printable(line, 400), soft_wrap=True)
    out.print()
    out.print(*comparison_tables(record), sep="\n")


def rollback(
    context: typer.Context,
    kind: Kind,
    store: Store = None,
    table: TableOption = None,
    cache: CacheOption = None,
    active: Annotated[
        str | None, typer.Option(help="Do nothing unless this is the active version.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the version active again that the active one replaced.

    Readers see it at once; the scores and ARM cache of the fans it changes follow.

    Examples:

      fan-identity imports rollback bot-or-not --store sqlite:///fans.db
    """
    from ..runner import stop_on_sigterm  # noqa: PLC0415

    wanted = kind_named(kind)
    settings = load_settings(store=store, table=table, cache=cache)
    with stop_on_sigterm():
        record, now_active, followed = job_of(wanted, settings, context.obj or []).roll_back(active)
    if as_json:
        print_json({"rolledBack": record.version, "active": now_active, "followed": followed})
        return
    out.print(f"{record.version} is taken back; {now_active or 'no version'} is active, {followed:,} scores followed")


def follow(
    context: typer.Context,
    kind: Kind,
    store: Store = None,
    table: TableOption = None,
    cache: CacheOption = None,
    as_json: AsJson = False,
) -> None:
    """Finish what a killed import or rollback left: scores and ARM cache that do not follow yet.

    Examples:

      fan-identity imports follow cluster --store sqlite:///fans.db
    """
    from ..runner import stop_on_sigterm  # noqa: PLC0415

    settings = load_settings(store=store, table=table, cache=cache)
    with stop_on_sigterm():
        followed = job_of(kind_named(kind), settings, context.obj or []).follow()
    if as_json:
        print_json({"followed": followed})
        return
    out.print(f"{followed:,} scores followed")


def clean(
    context: typer.Context,
    kind: Kind,
    store: Store = None,
    table: TableOption = None,
    cache: CacheOption = None,
    keep: Annotated[int, typer.Option(min=0, help="How many of the newest versions stay.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Delete old versions: never the active one, nor the one a rollback would go back to.

    Examples:

      fan-identity imports clean cluster --keep 5 --store sqlite:///fans.db
    """
    from ..runner import stop_on_sigterm  # noqa: PLC0415

    settings = load_settings(store=store, table=table, cache=cache)
    with stop_on_sigterm():
        deleted = job_of(kind_named(kind), settings, context.obj or []).clean(keep)
    if as_json:
        print_json({"deleted": deleted})
        return
    for version in deleted:
        out.print(f"deleted {version}")
    out.print(f"{len(deleted)} versions deleted")


def _versions(kind: ImportKind, store: str | None, table: str | None) -> "ImportVersions":
    from ...io.import_versions import ImportVersions  # noqa: PLC0415 - imports Arrow

    return ImportVersions(
        Backends.of_tables(load_settings(store=store, table=table), writes_cache=False).open_table(), kind
    )
