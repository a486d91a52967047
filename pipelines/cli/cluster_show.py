"""``fan-identity clusters show``: what a build of clusters found."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.table import Table

from ...domain.activity import format_time_ms
from ...domain.cluster_ids import Lineage
from ...io.clusters import LINEAGE_FILE, SUMMARY_FILE, cluster_files, read_rows
from ...io.errors import BackendUnavailableError, UsageError
from .common import AsJson, heading, out, print_json, printable, two_columns

if TYPE_CHECKING:
    from ...batch.cluster_summary import ClusterSummary

_SHOWN_MEMBERS: Final = 50


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
            print_summary(summary)
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


def print_summary(summary: "ClusterSummary") -> None:
    """Prints what a build did, as tables."""
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
    from ...batch.cluster_summary import ClusterSummary  # noqa: PLC0415

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
