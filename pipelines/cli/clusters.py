"""``fan-identity clusters``: building clusters from what fans share, and looking at them."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.table import Table

from ...domain.activity import MalformedRecordError, format_time_ms, parse_time_ms
from ...domain.cluster_ids import Lineage
from ...domain.linking import DEFAULT_LIMITS, KINDS, LinkKind, LinkRules
from ...io.clusters import LINEAGE_FILE, SUMMARY_FILE, cluster_files, read_rows
from ...io.errors import BackendUnavailableError, UsageError
from ...io.settings import load_settings
from .common import (
    EXIT_DEAD_LETTERS,
    EXIT_INTERRUPTED,
    AsJson,
    Format,
    Store,
    err,
    heading,
    out,
    parse_format,
    print_json,
    printable,
    two_columns,
)
from .lookup import existing_store

if TYPE_CHECKING:
    from ...batch.build_clusters import ClusterSummary

app = typer.Typer(no_args_is_help=True, help="Build clusters of fans who share identifiers, and look at them.")

_LIMIT: Final = re.compile(r"([a-zA-Z]+)=([0-9]{1,9})")
_NAMES: Final = {
    "device": LinkKind.DEVICE,
    "payment": LinkKind.PAYMENT,
    "phone": LinkKind.PHONE,
    "address": LinkKind.ADDRESS,
    "ip": LinkKind.IP_BLOCK,
}
_SHOWN_MEMBERS: Final = 50
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
        Path | None,
        typer.Option(help="The build, or its Parquet file, whose cluster ids go on.", show_default=False),
    ] = None,
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
    of activities (their context), and with --store what a store has seen. Writes clusters-*.parquet, which
    startClusterImport takes, review-*.parquet, lineage.jsonl and summary.json. Options of Beam itself follow after --.

    Exits with 1 where rows could not be read or clusters are put aside for review.

    Examples:

      fan-identity clusters build links.csv --to clusters-monday

      fan-identity clusters build links.parquet activities.jsonl --to clusters-tuesday --previous clusters-monday

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
        previous=[] if previous is None else [path.absolute() for path in cluster_files(previous)],
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
        _print_summary(summary)
    _end(summary, to)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="BUILD", help="Folder of a build.", show_default=False)],
    cluster: Annotated[str | None, typer.Option(help="Its fans, and what became of it.", show_default=False)] = None,
    fan: Annotated[str | None, typer.Option(help="The cluster this fan is in.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a build found, or one of its clusters: by its id or by a fan in it.

    Examples:

      fan-identity clusters show clusters-monday

      fan-identity clusters show clusters-monday --fan fan-00042

      fan-identity clusters show clusters-monday --cluster c0171cfb2b67b97c008a5 --json
    """
    files = cluster_files(folder)
    if fan is not None:
        cluster = _cluster_of(files, fan)
        if cluster is None:
            raise UsageError(f"--fan: {fan!a} is in no cluster of {folder}")
    if cluster is None:
        summary = _read_summary(folder)
        if as_json:
            print_json(msgspec.to_builtins(summary, str_keys=True))
        else:
            _print_summary(summary)
        return
    fans = _fans_of(files, cluster)
    lineage = _lineage_of(folder, cluster)
    if not fans and lineage is None:
        raise UsageError(f"--cluster: {folder} has no {cluster!a}, and had none")
    if as_json:
        print_json({"clusterId": cluster, "fans": fans, "lineage": lineage})
        return
    out.print(printable(f"{cluster}: {len(fans):,} fans", 400))
    for name in fans[:_SHOWN_MEMBERS]:
        out.print(printable(f"  {name}", 400))
    if len(fans) > _SHOWN_MEMBERS:
        out.print(f"  and {len(fans) - _SHOWN_MEMBERS:,} more; --json shows all")
    if lineage is not None:
        what = [name for name, is_so in (("split", lineage.split), ("merged", lineage.merged)) if is_so]
        out.print(f"before: {lineage.fans:,} fans; {' and '.join(what) or 'changed'}")
        for other, number in lineage.to:
            out.print(printable(f"  {number:,} are in {other} now", 400))
        if lineage.left:
            out.print(f"  {lineage.left:,} are in no cluster now")


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
            f"{folder}/review-*.parquet: a lower --max-fans splits them, a higher --review-size lets them pass"
        )
    if summary.rejected or summary.review:
        raise typer.Exit(EXIT_DEAD_LETTERS)


def _print_summary(summary: "ClusterSummary") -> None:
    out.print(heading(f"Clusters as of {format_time_ms(summary.updated_at)}"))
    rows: list[tuple[str, object]] = [
        ("rows", summary.rows),
        *((f"  {reason}", number) for reason, number in summary.rejected.items()),
        ("fans alone", summary.alone),
        ("fans in clusters", summary.clustered),
        ("clusters", summary.clusters),
        ("  put aside for review", len(summary.review)),
        *((f"  of up to {size:,} fans", number) for size, number in summary.sizes.items()),
        *((f"old clusters, {what}", number) for what, number in summary.previous.items()),
        ("pairs of fans linked by weak identifiers", summary.weak_links),
        ("seconds", summary.seconds),
    ]
    out.print(two_columns(rows))
    out.print()
    out.print(heading("Identifiers"))
    table = Table(box=None, padding=(0, 2, 0, 2))
    for column in ("", "links", "unusable", "shared", "limit", "hubs", "their fans"):
        table.add_column(column, justify="right" if column else "left")
    for name, kind in summary.kinds.items():
        numbers = (kind.links, kind.unusable, kind.identifiers, kind.limit, kind.hubs, kind.hub_links)
        table.add_row(f"{name}{', weak' if kind.weak else ''}", *(f"{number:,}" for number in numbers))
    out.print(table)
    out.print()
    out.print(heading("Rounds"))
    out.print(
        two_columns(
            [
                *((f"round {at}, pairs shuffled", pairs) for at, pairs in enumerate(summary.shuffled, 1)),
                ("on the way back", sum(summary.shuffled_back)),
            ]
        )
    )


def _read_summary(folder: Path) -> "ClusterSummary":
    from ...batch.build_clusters import ClusterSummary  # noqa: PLC0415 - imports Beam

    path = folder / SUMMARY_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClusterSummary, strict=False)
    except (OSError, msgspec.DecodeError):
        raise UsageError(f"{path}: cannot be read; name the folder of a build that ended") from None


def _cluster_of(files: list[Path], fan: str) -> str | None:
    for path in files:
        for batch in read_rows(str(path), ("clusterId",), ("globalUserId", fan)):
            for cluster in batch.column(0).to_pylist():
                return cluster
    return None


def _fans_of(files: list[Path], cluster: str) -> list[str]:
    return sorted(
        fan
        for path in files
        for batch in read_rows(str(path), ("globalUserId",), ("clusterId", cluster))
        for fan in batch.column(0).to_pylist()
    )


def _lineage_of(folder: Path, cluster: str) -> Lineage | None:
    path = folder / LINEAGE_FILE
    if not path.is_file():
        return None
    decode = msgspec.json.Decoder(Lineage).decode
    try:
        with path.open("rb") as file:
            return next((one for one in map(decode, file) if one.cluster_id == cluster), None)
    except (OSError, msgspec.DecodeError) as error:
        raise BackendUnavailableError(f"{path}: cannot be read: {error}") from None
