"""The clusters fans were in before: from files of a build, or from the active version of a table, bucket by bucket."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from typing_extensions import override

from ..domain.imports import BUCKETS
from ..domain.linking import fan_hash
from ..io.active_clusters import ActiveClusters
from ..io.clusters import read_assignments
from .cluster_tables import NAMED, encode_table, spread
from .components import Keyed

Previous = Sequence[Path] | ActiveClusters
"""Parquet files of an assignment, each fan in one of them, or a version in a table."""


@dataclass
class ReadPrevious(beam.PTransform[Any, Any]):
    """A pipeline's beginning to tables of fans and their old cluster (``NAMED``), by the fan's partition.

    A worker holds a batch of a file's rows, or one of the 256 buckets of a version, at once.

    Attributes:
        previous: where they stand; of an empty sequence comes nothing.
        key: of the hashes.
        partitions: of fans.
    """

    previous: Previous
    key: bytes
    partitions: int

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        if isinstance(self.previous, ActiveClusters):
            elements: list[Any] = list(range(BUCKETS))
            read: beam.DoFn = _ReadBucket(self.previous, self.key, self.partitions)
        else:
            elements = [str(path) for path in self.previous]
            read = _ReadFile(self.key, self.partitions)
        begun: Any = input_or_inputs | beam.Create(elements, reshuffle=False)
        return begun | beam.Reshuffle() | beam.ParDo(read).with_output_types(Keyed)


class _ReadFile(beam.DoFn):
    def __init__(self, key: bytes, partitions: int) -> None:
        self._key = key
        self._partitions = partitions

    @override
    def process(self, element: str, *args: Any, **kwargs: Any) -> Iterator[Keyed]:
        for fans, clusters in read_assignments(element):
            yield from _tables(fans, clusters, self._key, self._partitions)


class _ReadBucket(beam.DoFn):
    def __init__(self, active: ActiveClusters, key: bytes, partitions: int) -> None:
        self._active = active
        self._key = key
        self._partitions = partitions

    @override
    def process(self, element: int, *args: Any, **kwargs: Any) -> Iterator[Keyed]:
        fans, clusters = self._active.assignments(element)
        yield from _tables(fans, clusters, self._key, self._partitions)


def _tables(fans: list[str], clusters: list[str], key: bytes, partitions: int) -> Iterator[Keyed]:
    hashes = np.fromiter((fan_hash(fan, key) for fan in fans), np.uint64, len(fans))
    table = pa.table([pa.array(hashes), pa.array(clusters, pa.string())], schema=NAMED)
    for partition, part in spread(table, "fan", partitions):
        yield partition, encode_table(part)
