"""``fan-identity clusters``: building clusters from what fans share, and looking at them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from ...domain.activity import MalformedRecordError, parse_time_ms
from ...domain.linking import DEFAULT_LIMITS, KINDS, LinkKind, LinkRules
from ...io.addresses import parse_address
from ...io.backends import Backends, sqlite_store
from ...io.clusters import REVIEW_FOLDER, cluster_files
from ...io.errors import UsageError
from ...io.settings import load_settings
from .cluster_show import print_summary, show
from .common import (
    EXIT_DEAD_LETTERS,
    EXIT_INTERRUPTED,
    AsJson,
    Format,
    Store,
    err,
    parse_format,
    print_json,
)
from .imports import TableOption
from .lookup import existing_store

if TYPE_CHECKING:
    from ...batch.cluster_summary import ClusterSummary
    from ...transforms.cluster_previous import Previous

app = typer.Typer(no_args_is_help=True, help="Build clusters of fans who share identifiers, and look at them.")

_LIMIT: Final = re.compile(r"([a-zA-Z]+)=([0-9]{1,9})")
_NAMES: Final = {
    "device": LinkKind.DEVICE,
    "payment": LinkKind.PAYMENT,
    "phone": LinkKind.PHONE,
    "address": LinkKind.ADDRESS,
    "ip": LinkKind.IP_BLOCK,
}
_ACTIVE: Final = "active"
_DEFAULTS: Final = ", ".join(f"{name}={DEFAULT_LIMITS[kind]}" for name, kind in _NAMES.items())


@app.command("build")
def build_command(
    context: typer.Context,
    to: Annotated[Path, typer.Option(help="Folder for the result; without an earlier one.", show_default=False)],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT", help="Files of links or activities.", show_default=False)
    ] = None,
    store: Store = None,
    file_format: Format = None,
    previous: Annotated[
        str | None,
        typer.Option(
            metavar="BUILD|active",
            help="The build, or its Parquet file, whose cluster ids go on; or active: the active version of the table.",
            show_default=False,
        ),
    ] = None,
    table: TableOption = None,
    most_fans: Annotated[
        list[str] | None,
        typer.Option("--max-fans", metavar="KIND=N", help=f"Fans an identifier may have; else {_DEFAULTS}."),
    ] = None,
    weak: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Kinds of which two fans must share two; else ip."),
    ] = None,
    review_size: Annotated[
        int, typer.Option(min=2, help="Put clusters of more fans aside, for a person to look at.")
    ] = LinkRules().review_size,
    as_of: Annotated[
        str | None, typer.Option(help="The time of the result, ISO 8601; now unless given.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build clusters: fans who share a device, payment instrument, phone, address, or two blocks of IP addresses.

    Reads JSONL, CSV or Parquet with globalUserId and any of deviceId, paymentId, phone, address, ipAddress, also files
    of activities (their context), also compressed (.gz, .zst), and with --store what a store has seen. Writes a folder
    for: fan-identity imports start cluster FOLDER/. Options of Beam itself follow after --.

    Exits with 1 where rows could not be read or clusters are put aside for review.

    Examples:

      fan-identity clusters build links.csv --to clusters-monday

      fan-identity clusters build links.parquet activities.jsonl --to clusters-tuesday --previous clusters-monday

      fan-identity clusters build links.jsonl.gz --to clusters-wednesday --previous active --table dynamodb://fanIdentity

      fan-identity clusters build links.jsonl --to strict --max-fans ip=10 --max-fans phone=3 --weak ip --weak address
    """
    rules = _rules(most_fans or [], weak, review_size)
    updated_at = _time(as_of)
    # Beam takes a second to import: only where it is needed.
    from ...batch.build_clusters import BuildPlan, build_clusters, check_folder  # noqa: PLC0415
    from ...io.link_files import plan_links  # noqa: PLC0415
    from ...io.sqlite.links import SqliteLinks  # noqa: PLC0415
    from ...transforms.cluster_links import Source  # noqa: PLC0415
    from ..runner import parse_beam_flags  # noqa: PLC0415

    # Where there are files, a store that only the environment names is not meant.
    named = context.get_parameter_source("store")
    stores: list[Source] = []
    if store is not None and (not inputs or (named is not None and named.name == "COMMANDLINE")):
        stores = [SqliteLinks(existing_store(store))]
    if not inputs and not stores:
        raise UsageError("nothing to build from: name files, or a store with --store")
    options = parse_beam_flags(context.obj or [], prism=load_settings().prism, job="clusters")
    plan = BuildPlan(
        sources=[*plan_links(inputs or [], parse_format(file_format)), *stores],
        rules=rules,
        folder=to.absolute(),
        updated_at=updated_at,
        previous=_previous(previous, store, table),
    )
    check_folder(plan.folder)
    try:
        with err.status(f"clustering about {plan.about_rows():,} rows"):
            summary = build_clusters(plan, options)
    except KeyboardInterrupt:
        err.print(f"stopped: no clusters were written to {to}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        print_json(msgspec.to_builtins(summary, str_keys=True))
    else:
        print_summary(summary)
    _end(summary, to)


def _previous(named: str | None, store: str | None, table: str | None) -> "Previous":
    """The assignment whose ids go on.

    Args:
        named: a build, its Parquet file, ``active`` or None.
        store: has the active version where no table is named.
        table: has the active version.

    Raises:
        UsageError: there is no such build, no table, or no version is active in it.
        BackendUnavailableError: the table is out of reach.
    """
    from ...io.active_clusters import ActiveClusters  # noqa: PLC0415 - imports Arrow

    if named == _ACTIVE:
        backends = Backends.of_tables(load_settings(store=store, table=table), writes_cache=False)
        if parse_address(backends.table, "table").scheme == "sqlite":
            # Opened first as what must exist: looking makes no store.
            sqlite_store(backends.table, "table" if table else "store", create=False).connection  # noqa: B018
        return ActiveClusters.of(backends)
    if table is not None:
        raise UsageError("--table says where the active clusters are; add --previous active, or leave it out")
    return [] if named is None else [path.absolute() for path in cluster_files(Path(named))]


def _rules(limits: list[str], weak: list[str] | None, review_size: int) -> LinkRules:
    most = dict(DEFAULT_LIMITS)
    for text in limits:
        found = _LIMIT.fullmatch(text)
        if found is None:
            raise UsageError(f"--max-fans {text!a}: write KIND=N, such as phone=3")
        most[_kind(found[1], "--max-fans")] = int(found[2])
    kinds = LinkRules().weak if weak is None else frozenset(_kind(name, "--weak") for name in weak)
    try:
        return LinkRules(most, kinds, review_size)
    except ValueError as error:
        raise UsageError(f"--max-fans: {error}") from None


def _kind(name: str, option: str) -> LinkKind:
    if name in _NAMES:
        return _NAMES[name]
    if name in KINDS:
        return LinkKind(name)
    raise UsageError(f"{option}: {name!a} is no kind of identifier; one of {', '.join(_NAMES)}")


def _time(text: str | None) -> int:
    if text is None:
        return int(datetime.now(UTC).timestamp() * 1_000)
    try:
        return parse_time_ms(text)
    except MalformedRecordError:
        raise UsageError("--as-of: write a time as 2024-06-14T10:00:00Z") from None


def _end(summary: "ClusterSummary", folder: Path) -> None:
    for reason, number in summary.rejected.items():
        err.print(f"{number:,} rows were left out: {reason.replace('_', ' ')}")
    if summary.review:
        fans = sum(cluster.fans for cluster in summary.review)
        err.print(
            f"{len(summary.review):,} clusters of {fans:,} fans are too large to be believed; look at them in "
            f"{folder}/{REVIEW_FOLDER}: a lower --max-fans splits them, a higher --review-size lets them pass"
        )
    if summary.rejected or summary.review:
        raise typer.Exit(EXIT_DEAD_LETTERS)


app.command()(show)
