"""The first half of an import: files become a version in the work folder, compared with the active one.

Fans travel as Arrow tables of one bucket, not one by one: an element costs as much as merging a thousand fans does, and
packed they take a tenth of the memory where a runner holds a shuffle in memory. Nothing here writes to a table.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results. Its kernels are made
# when it is loaded, so no tool sees their names.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

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

from ..domain.import_clusters import ClusterSizes
from ..domain.import_comparison import PartReport, added
from ..domain.import_merge import merge, rows_schema, split_by_bucket
from ..domain.imports import BUCKETS, EXAMPLES, Comparison, ImportKind
from ..domain.records import DeadLetter, dead_letter_id
from ..io.backends import Backends
from ..io.import_files import BadRow, ImportRange, ImportRows, read_import
from ..io.import_scores import Active, compare_fans
from ..io.import_versions import ImportVersions, Part, from_bytes, to_bytes
from ..io.work_folder import WorkFolder
from .batches import count
from .import_clusters import CompareClusters, Packed

HELD_ROWS: Final = 1_000_000
"""Rows of a range held at once, about. A compressed file is one range, whatever its size."""

_REPORT: Final = "report"


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
        read: Any = input_or_inputs | "Read files" >> beam.ParDo(
            _ReadRows(self.kind, self.work, self.import_id)
        ).with_outputs(_REPORT, main="rows")
        # Fans the files do not name are in buckets of the active version all the same.
        empty = [(bucket, b"") for bucket in range(BUCKETS)]
        every_bucket: Any = input_or_inputs.pipeline | "Every bucket" >> beam.Create(empty)
        merged: Any = (
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


def _portions(parts: Iterable[ImportRows]) -> Iterator[list[ImportRows]]:
    held: list[ImportRows] = []
    for part in parts:
        held.append(part)
        if sum(each.rows for each in held) >= HELD_ROWS:
            yield held
            held = []
    if held:
        yield held


class _ReadRows(beam.DoFn):
    """A range of a file to packed rows by bucket; bad rows go to the work folder as dead letters."""

    def __init__(self, kind: ImportKind, work: WorkFolder, import_id: str) -> None:
        self._kind = kind
        self._work = work
        self._import_id = import_id

    def process(self, element: ImportRange) -> Iterator[Any]:
        """Yields buckets and reports; of a large range each bucket more than once, so that memory stays bounded."""
        for number, parts in enumerate(_portions(read_import(element))):
            yield from self._portion(element, number, parts)
        self._work.mark("read")

    def _portion(self, element: ImportRange, number: int, parts: Sequence[ImportRows]) -> Iterator[Any]:
        bad = [row for part in parts for row in part.bad]
        if bad:
            letters = [self._letter(element, row) for row in bad]
            name = dead_letter_id("", element.name, f"{element} {number}", b"")
            self._work.write(f"bad-{name}", msgspec.msgpack.encode(letters))
        table = pa.concat_tables([part.table for part in parts])
        rows = sum(part.rows for part in parts)
        count("rows", rows)
        yield from ((bucket, to_bytes(part)) for bucket, part in split_by_bucket(table))
        newest = pc.max(table["updatedAt"]).as_py() or 0
        reasons = Counter(row.reason for row in bad)
        examples = tuple(f"{row.position}: {row.error}" for row in bad[:EXAMPLES])
        yield TaggedOutput(_REPORT, PartReport(Comparison(rows=rows, bad=dict(reasons), bad_examples=examples), newest))

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

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
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
        staged, report = compare_fans(self._kind, self._active, self._table, fans)
        self._work.write(f"fans-{bucket:02x}", to_bytes(staged))
        self._work.mark("compared")
        yield PartReport(report)
