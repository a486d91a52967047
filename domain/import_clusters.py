"""Clusters of two versions side by side, as Arrow tables: which fans went from where to where, and sizes."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results. Its kernels are made
# when it is loaded, so no tool sees their names.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .import_comparison import ClusterExample, largest_clusters
from .imports import EXAMPLES, ClusterChanges

_HASH_BYTES = 8


def cluster_pairs(fans: Any) -> Any:
    """How many fans went from which cluster to which: columns ``value``, ``valueBefore`` (null for none), ``fans``."""
    pairs = fans.group_by(["value", "valueBefore"], use_threads=False).aggregate([([], "count_all")])
    return pairs.rename_columns(["value", "valueBefore", "fans"])


def hashes(texts: Sequence[str]) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """64 bits of each text's SHA-256 name a cluster; of five million, two meet once in 1.5 million runs."""
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:_HASH_BYTES] for text in texts)
    return np.frombuffer(digests, dtype=np.uint64)


class ClusterSizes:
    """The sizes of all clusters of a version, 16 bytes a cluster.

    Args:
        parts: of the clusters, (hashes, sizes) as ``of`` packs them.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        pairs = np.concatenate([np.frombuffer(part, dtype=np.uint64) for part in parts] or [np.empty(0, np.uint64)])
        keys, sizes = pairs[0::2], pairs[1::2]
        order = np.argsort(keys)
        self._keys = keys[order]
        self._sizes = sizes[order]

    @staticmethod
    def pack(clusters: Sequence[str], sizes: Sequence[int]) -> bytes:
        """Clusters and their sizes as bytes."""
        pairs = np.empty(2 * len(sizes), dtype=np.uint64)
        pairs[0::2] = hashes(clusters)
        pairs[1::2] = sizes
        return pairs.tobytes()

    def of(self, clusters: Any) -> Any:
        """The size of each cluster, null for a null.

        Args:
            clusters: a text column of a ``pyarrow.Table``; each of its clusters is known here.
        """
        encoded = clusters.combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        found = (
            self._sizes[np.searchsorted(self._keys, hashes(encoded.dictionary.to_pylist()))]
            if len(encoded.dictionary)
            else np.empty(0, np.uint64)
        )
        return pa.array(found, type=pa.int64()).take(encoded.indices)


def new_clusters(parts: Sequence[Any]) -> tuple[bytes, ClusterChanges]:
    """The sizes of some of the new version's clusters, packed, and which of them fans of several old clusters share.

    Args:
        parts: all pairs of these clusters, from any number of ``cluster_pairs``.
    """
    pairs = _summed(parts)
    sizes = pairs.group_by("value", use_threads=False).aggregate([("fans", "sum")])
    merged, examples = _of_several(pairs, "value", "valueBefore")
    packed = ClusterSizes.pack(sizes["value"].to_pylist(), sizes["fans_sum"].to_pylist())
    return packed, ClusterChanges(after=sizes.num_rows, merged=merged, merged_examples=examples)


def old_clusters(parts: Sequence[Any]) -> ClusterChanges:
    """Which of some of the active version's clusters split.

    Args:
        parts: all pairs of these clusters, from any number of ``cluster_pairs``.
    """
    pairs = _summed(parts)
    split, examples = _of_several(pairs, "valueBefore", "value")
    return ClusterChanges(before=pc.count_distinct(pairs["valueBefore"]).as_py(), split=split, split_examples=examples)


def _summed(parts: Sequence[Any]) -> Any:
    pairs = pa.concat_tables(parts)
    summed = pairs.group_by(["value", "valueBefore"], use_threads=False).aggregate([("fans", "sum")])
    return summed.rename_columns(["value", "valueBefore", "fans"])


def _of_several(pairs: Any, column: str, other: str) -> tuple[int, tuple[ClusterExample, ...]]:
    """How many clusters of one column share fans with two or more of the other, and the largest of them."""
    both = pairs.filter(pc.is_valid(pairs[other]))
    grouped = both.group_by(column, use_threads=False).aggregate([(other, "count"), ("fans", "sum")])
    several = grouped.filter(pc.greater(grouped[f"{other}_count"], 1)).sort_by(
        [("fans_sum", "descending"), (column, "ascending")]
    )
    examples: list[ClusterExample] = []
    for name in several[column].slice(0, EXAMPLES).to_pylist():
        parts = both.filter(pc.equal(both[column], name))
        examples.append((name, tuple(zip(parts[other].to_pylist(), parts["fans"].to_pylist(), strict=True))))
    return several.num_rows, largest_clusters(examples)
