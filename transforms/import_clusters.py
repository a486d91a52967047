"""How the clusters of a new version differ from the active one's, and how large they are."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterable, Iterator
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import TaggedOutput
from typing_extensions import override

from ..domain.import_comparison import PartReport, largest_clusters
from ..domain.import_merge import ClusterSizes, cluster_pairs, split_by_bucket
from ..domain.imports import EXAMPLES, ClusterChanges, Comparison
from ..io.import_versions import from_bytes, to_bytes

Packed = tuple[int, bytes]
"""A bucket and some of its rows: an Arrow IPC stream."""

_REPORT: Final = "report"


class CompareClusters(beam.PTransform[Any, Any]):
    """Merged buckets to the sizes of the new clusters, and reports of those that split or merged."""

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        pairs = input_or_inputs | "Count pairs" >> beam.ParDo(_CountPairs()).with_outputs("valueBefore", main="value")
        after = (
            pairs.value
            | "To new clusters" >> beam.GroupByKey()
            | "New clusters" >> beam.ParDo(_NewClusters()).with_outputs(_REPORT, main="sizes")
        )
        before = (
            pairs.valueBefore | "To old clusters" >> beam.GroupByKey() | "Old clusters" >> beam.ParDo(_OldClusters())
        )
        return {"sizes": after.sizes, "after": after[_REPORT], "before": before}


class _CountPairs(beam.DoFn):
    def process(self, element: Packed) -> Iterator[Packed | TaggedOutput]:
        pairs = cluster_pairs(from_bytes(element[1]))
        for bucket, part in split_by_bucket(pairs.filter(pc.is_valid(pairs["value"])), "value"):
            yield bucket, to_bytes(part)
        for bucket, part in split_by_bucket(pairs.filter(pc.is_valid(pairs["valueBefore"])), "valueBefore"):
            yield TaggedOutput("valueBefore", (bucket, to_bytes(part)))


class _NewClusters(beam.DoFn):
    """A bucket of new clusters, with the clusters their fans come from."""

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        bucket, packed = element
        pairs = _summed_pairs(packed)
        sizes = pairs.group_by("value", use_threads=False).aggregate([("fans", "sum")])
        yield bucket, ClusterSizes.pack(sizes["value"].to_pylist(), sizes["fans_sum"].to_pylist())
        number, examples = _of_several(pairs, "value", "valueBefore")
        changes = ClusterChanges(after=sizes.num_rows, merged=number, merged_examples=examples)
        yield TaggedOutput(_REPORT, PartReport(Comparison(clusters=changes)))


class _OldClusters(beam.DoFn):
    """A bucket of old clusters, with the clusters their fans are in now."""

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[PartReport]:
        pairs = _summed_pairs(element[1])
        number, examples = _of_several(pairs, "valueBefore", "value")
        before = pc.count_distinct(pairs["valueBefore"]).as_py()
        yield PartReport(Comparison(clusters=ClusterChanges(before=before, split=number, split_examples=examples)))


def _summed_pairs(packed: Iterable[bytes]) -> Any:
    pairs = pa.concat_tables([from_bytes(data) for data in packed])
    summed = pairs.group_by(["value", "valueBefore"], use_threads=False).aggregate([("fans", "sum")])
    return summed.rename_columns(["value", "valueBefore", "fans"])


def _of_several(pairs: Any, column: str, other: str) -> tuple[int, tuple[tuple[str, tuple[tuple[str, int], ...]], ...]]:
    """How many clusters of one column share fans with two or more of the other, and the largest of them."""
    both = pairs.filter(pc.is_valid(pairs[other]))
    grouped = both.group_by(column, use_threads=False).aggregate([(other, "count"), ("fans", "sum")])
    several = grouped.filter(pc.greater(grouped[f"{other}_count"], 1)).sort_by(
        [("fans_sum", "descending"), (column, "ascending")]
    )
    examples: list[tuple[str, tuple[tuple[str, int], ...]]] = []
    for name in several[column].slice(0, EXAMPLES).to_pylist():
        parts = both.filter(pc.equal(both[column], name))
        examples.append((name, tuple(zip(parts[other].to_pylist(), parts["fans"].to_pylist(), strict=True))))
    return several.num_rows, largest_clusters(examples)
