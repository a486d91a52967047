"""How the clusters of a new version differ from the active one's, and how large they are."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from typing_extensions import override

from ..domain.import_clusters import cluster_pairs, new_clusters, old_clusters
from ..domain.import_comparison import PartReport
from ..domain.import_merge import split_by_bucket
from ..domain.imports import Comparison
from ..io.import_versions import from_bytes, to_bytes
from .batches import parted_do

Packed = tuple[int, bytes]
"""A bucket and some of its rows: an Arrow IPC stream."""

_REPORT: Final = "report"


class CompareClusters(beam.PTransform[Any, Any]):
    """Merged buckets (``Packed``) to a dictionary of three collections.

    ``sizes``: the new clusters' sizes by bucket, as ``ClusterSizes`` takes them; ``after`` and ``before``: reports of
    the new clusters and of the old ones.
    """

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        pairs: Any = input_or_inputs | "Count pairs" >> parted_do(_CountPairs(), "old", main="new")
        after: Any = (
            pairs.new
            | "To new clusters" >> beam.GroupByKey()
            | "New clusters" >> parted_do(_NewClusters(), _REPORT, main="sizes")
        )
        before = pairs.old | "To old clusters" >> beam.GroupByKey() | "Old clusters" >> beam.ParDo(_OldClusters())
        return {"sizes": after.sizes, "after": after[_REPORT], "before": before}


class _CountPairs(beam.DoFn):
    def process(self, element: Packed) -> Iterator[Any]:
        pairs = cluster_pairs(from_bytes(element[1]))
        for bucket, part in split_by_bucket(pairs, "value"):
            yield bucket, to_bytes(part)
        for bucket, part in split_by_bucket(pairs, "valueBefore"):
            yield TaggedOutput("old", (bucket, to_bytes(part)))


class _NewClusters(beam.DoFn):
    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        bucket, packed = element
        sizes, changes = new_clusters([from_bytes(data) for data in packed])
        yield bucket, sizes
        yield TaggedOutput(_REPORT, PartReport(Comparison(clusters=changes)))


class _OldClusters(beam.DoFn):
    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[PartReport]:
        changes = old_clusters([from_bytes(data) for data in element[1]])
        yield PartReport(Comparison(clusters=changes))
