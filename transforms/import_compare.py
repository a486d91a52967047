"""The first half of an import: files become a version in the work folder, compared with the active one.

Fans travel as Arrow tables of one bucket, not one by one: an element costs as much as merging a thousand fans does, and
packed they take a tenth of the memory where a runner holds a shuffle in memory. Nothing here writes to a table.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import AsDict, TaggedOutput
from typing_extensions import override

from ..domain.import_comparison import PartReport, added, arm_matrix, best_examples, value_classes
from ..domain.import_effects import ImportedValues, with_imports
from ..domain.import_merge import ClusterSizes, differs, merge, rows_schema, split_by_bucket
from ..domain.imports import BUCKETS, EXAMPLES, ArmChange, Cluster, Comparison, ImportKind
from ..domain.keys import LATEST_SK, user_pk
from ..domain.records import DeadLetter, dead_letter_id
from ..io.backends import Backends
from ..io.import_files import BadRow, ImportRange, read_import
from ..io.import_versions import ImportVersions, Part, from_bytes, to_bytes
from ..io.ports import Item, Table
from ..io.work_folder import WorkFolder
from .batches import count
from .import_clusters import CompareClusters, Packed

_REPORT: Final = "report"
_LOOKED_UP: Final = 2_000
"""Fans whose latest items are read at once."""


@dataclass(frozen=True)
class Active:
    """What a new version is compared with.

    Attributes:
        version: the active version of the same kind, or None.
        other_version: the active version of the other kind, or None: its values count too.
    """

    version: str | None
    other_version: str | None


@dataclass
class CompareWithActive(beam.PTransform[Any, Any]):
    """``ImportRange`` elements to the new version's fans in the work folder, and one ``PartReport`` of all of it.

    Attributes:
        kind: of the import.
        active: what to compare with.
        backends: the table.
        work: where fans, bad rows and the report go.
        import_id: in the dead letters of bad rows.
    """

    kind: ImportKind
    active: Active
    backends: Backends
    work: WorkFolder
    import_id: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        read = input_or_inputs | "Read files" >> beam.ParDo(
            _ReadRows(self.kind, self.work, self.import_id)
        ).with_outputs(_REPORT, main="rows")
        # Fans the files do not name are in buckets of the active version all the same.
        empty = [(bucket, b"") for bucket in range(BUCKETS)]
        every_bucket: Any = input_or_inputs.pipeline | "Every bucket" >> beam.Create(empty)
        merged = (
            [read.rows, every_bucket]
            | beam.Flatten()
            | "To buckets" >> beam.GroupByKey()
            | "Merge" >> beam.ParDo(_Merge(self.kind, self.active, self.backends)).with_outputs(_REPORT, main="fans")
        )
        reports = [read[_REPORT], merged[_REPORT]]
        sizes: dict[str, Any] = {}
        if self.kind is ImportKind.CLUSTER:
            changes = merged.fans | "Compare clusters" >> CompareClusters()
            reports += [changes["before"], changes["after"]]
            sizes = {"sizes": AsDict(changes["sizes"])}
        compared = merged.fans | "Compare scores" >> beam.ParDo(
            _CompareFans(self.kind, self.active, self.backends, self.work), **sizes
        )
        return (
            [*reports, compared]
            | "All reports" >> beam.Flatten()
            | "Add up" >> beam.CombineGlobally(_total)
            | "Write report" >> beam.Map(_write_report, self.work)
        )


def _total(reports: Iterable[PartReport]) -> PartReport:
    total = PartReport(Comparison())
    for report in reports:
        total = added(total, report)
    return total


def _write_report(report: PartReport, work: WorkFolder) -> None:
    work.write("report.json", msgspec.json.encode(report))


class _ReadRows(beam.DoFn):
    """A range of a file to packed rows by bucket; bad rows go to the work folder as dead letters."""

    def __init__(self, kind: ImportKind, work: WorkFolder, import_id: str) -> None:
        self._kind = kind
        self._work = work
        self._import_id = import_id

    def process(self, element: ImportRange) -> Iterator[Packed | TaggedOutput]:
        """Yields the range's buckets, each once, and a report."""
        tables: list[Any] = []
        bad: list[BadRow] = []
        rows = 0
        for part in read_import(element):
            tables.append(part.table)
            bad += part.bad
            rows += part.rows
        if bad:
            letters = [self._letter(element, row) for row in bad]
            self._work.write(
                f"bad-{dead_letter_id('', element.name, str(element), b'')}", msgspec.msgpack.encode(letters)
            )
        count("rows", rows)
        whole = pa.concat_tables(tables) if tables else rows_schema(self._kind).empty_table()
        yield from ((bucket, to_bytes(part)) for bucket, part in split_by_bucket(whole))
        newest = pc.max(whole["updatedAt"]).as_py() or 0
        reasons = Counter(row.reason for row in bad)
        examples = tuple(f"{row.position}: {row.error}" for row in bad[:EXAMPLES])
        yield TaggedOutput(_REPORT, PartReport(Comparison(rows=rows, bad=dict(reasons), bad_examples=examples), newest))
        self._work.mark("read")

    def _letter(self, part: ImportRange, row: BadRow) -> DeadLetter:
        worker = self._kind.worker
        return DeadLetter(
            dead_letter_id=dead_letter_id(worker, part.name, row.position, row.payload),
            worker=worker,
            reason=row.reason,
            error=row.error,
            stack="",
            attempts=1,
            request_id=self._import_id,
            activity_id=None,
            source=part.name,
            position=row.position,
            payload=row.payload,
        )


class _Merge(beam.DoFn):
    """A bucket's rows, and the active version's fans of it, to one table."""

    def __init__(self, kind: ImportKind, active: Active, backends: Backends) -> None:
        self._kind = kind
        self._active = active
        self._backends = backends

    def setup(self) -> None:
        self._versions = ImportVersions(self._backends.open_table(), self._kind)

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Packed | TaggedOutput]:
        """Yields the merged bucket, and a report of what was resolved."""
        bucket, packed = element
        parts = [from_bytes(data) for data in packed if data]
        rows = pa.concat_tables(parts) if parts else rows_schema(self._kind).empty_table()
        version = self._active.version
        active = None if version is None else self._versions.bucket(version, Part.FANS, bucket)
        if rows.num_rows == 0 and active is None:
            return
        merged = merge(self._kind, rows, active)
        yield bucket, to_bytes(merged.fans)
        report = Comparison(compared_with=version, repeated=merged.repeated, older=merged.older)
        yield TaggedOutput(_REPORT, PartReport(report))


class _CompareFans(beam.DoFn):
    """A merged bucket to the new version's fans in the work folder, and a report of what happens to scores."""

    def __init__(self, kind: ImportKind, active: Active, backends: Backends, work: WorkFolder) -> None:
        self._kind = kind
        self._active = active
        self._backends = backends
        self._work = work
        self._sizes: ClusterSizes | None = None

    def setup(self) -> None:
        self._table = self._backends.open_table()

    def process(self, element: Packed, sizes: Mapping[int, bytes] | None = None) -> Iterator[PartReport]:
        """Yields the bucket's report."""
        bucket, data = element
        fans = from_bytes(data)
        if sizes is not None:
            self._sizes = self._sizes or ClusterSizes(list(sizes.values()))
            fans = fans.append_column("size", self._sizes.of(fans["value"]))
        fans = fans.append_column("changed", differs(fans))
        known = pc.and_(pc.invert(fans["changed"]), pc.fill_null(fans["knownBefore"], False))
        looked_up = fans.filter(pc.invert(known))
        scored, changes, examples = compare_scores(self._kind, self._active, self._table, looked_up.to_pylist())
        # Known by their index: the users looked up stand in the table's order.
        flags = known.to_pylist()
        found = iter(scored)
        fans = fans.append_column("known", pa.array([flag or next(found) for flag in flags], type=pa.bool_()))
        now = fans.filter(pc.is_valid(fans["value"]))
        was = fans.filter(pc.is_valid(fans["valueBefore"]))
        self._work.write(
            f"fans-{bucket:02x}",
            to_bytes(
                fans.select(
                    ["user", "value", "updatedAt", *(["size"] if sizes is not None else []), "known", "changed"]
                )
            ),
        )
        added_fans, both = now.num_rows, was.filter(pc.is_valid(was["value"])).num_rows
        changed_both = int(pc.sum(pc.and_(both_values(fans), fans["changed"])).as_py() or 0)
        measure, before = ("value", "valueBefore") if sizes is None else ("size", "sizeBefore")
        yield PartReport(
            Comparison(
                fans=now.num_rows,
                unknown=now.num_rows - int(pc.sum(now["known"]).as_py() or 0),
                added=added_fans - both,
                removed=was.num_rows - both,
                changed=changed_both,
                unchanged=both - changed_both,
                arm=arm_matrix(changes),
                examples=best_examples(examples),
                values_after=value_classes(self._kind, now[measure].to_numpy()),
                values_before=value_classes(self._kind, was[before].to_numpy()),
            )
        )
        self._work.mark("compared")


def both_values(fans: Any) -> Any:
    """For each fan of a merged table whether both versions have a value."""
    return pc.and_(pc.is_valid(fans["value"]), pc.is_valid(fans["valueBefore"]))


def compare_scores(
    kind: ImportKind, active: Active, table: Table, fans: Sequence[Mapping[str, Any]]
) -> tuple[list[bool], Counter[tuple[int, int]], list[ArmChange]]:
    """What fans' scores are now and would be.

    Args:
        kind: of the import.
        active: the versions that count now.
        table: has the fans' latest items.
        fans: rows of a merged table.

    Returns:
        For each fan whether it was ever scored; how many scored fans go from which ARM to which; examples of those
        whose ARM changes.
    """
    known: list[bool] = []
    changes: Counter[tuple[int, int]] = Counter()
    examples: list[ArmChange] = []
    for start in range(0, len(fans), _LOOKED_UP):
        page = fans[start : start + _LOOKED_UP]
        keys = [user_pk(fan["user"]) for fan in page]
        latest = table.batch_get([(pk, LATEST_SK) for pk in keys])
        others = _other_values(kind, active, table, keys)
        for fan, item, other in zip(page, latest, others, strict=True):
            known.append(item is not None)
            if item is None or not fan["changed"]:
                continue
            after = with_imports(item, _imported(kind, fan["value"], fan.get("size"), other))
            before_arm, after_arm = int(item["armRisk"]), int(after["armRisk"])
            changes[before_arm, after_arm] += 1
            if before_arm != after_arm:
                examples.append(_example(fan, item, after))
        examples = list(best_examples(examples))
    return known, changes, examples


def _other_values(kind: ImportKind, active: Active, table: Table, keys: Sequence[str]) -> list[Item | None]:
    if active.other_version is None:
        return [None] * len(keys)
    other = ImportKind.CLUSTER if kind is ImportKind.BOT_OR_NOT else ImportKind.BOT_OR_NOT
    return table.batch_get([(pk, other.fan_sk(active.other_version)) for pk in keys])


def _imported(kind: ImportKind, value: Any, size: int | None, other: Item | None) -> ImportedValues:
    """What both kinds of import say of a fan, one of them new."""
    if kind is ImportKind.BOT_OR_NOT:
        cluster = None if other is None else Cluster(str(other["clusterId"]), int(other["clusterSize"]))
        return ImportedValues(value, cluster)
    return ImportedValues(
        None if other is None else float(other["bonScore"]), None if value is None else Cluster(value, size or 1)
    )


def _example(fan: Mapping[str, Any], before: Item, after: Item) -> ArmChange:
    return ArmChange(
        global_user_id=fan["user"],
        arm_before=int(before["armRisk"]),
        arm_after=int(after["armRisk"]),
        score_before=float(before["accountScore"]),
        score_after=float(after["accountScore"]),
        value_before=fan["valueBefore"],
        value_after=fan["value"],
    )
