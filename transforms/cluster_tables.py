"""Fans and clusters as Arrow tables, and how they travel: where ids are texts, blocks of numbers do not do."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from .cluster_blocks import Nodes, starts

Table = Any
"""A ``pyarrow.Table``."""

NAMED: Any = pa.schema([("fan", pa.uint64()), ("name", pa.string())])
"""A fan's hash, and its id, or the id of the cluster it was in."""

MEMBERS: Any = pa.schema([("component", pa.uint64()), ("user", pa.string()), ("previous", pa.string())])
"""A fan of a component, and the id of the cluster it was in, or null."""

OVERLAPS: Any = pa.schema(
    [("component", pa.uint64()), ("smallest", pa.string()), ("old", pa.string()), ("fans", pa.int64())]
)
"""Fans a component shares with an old cluster; without a component, fans that are in none now."""

NAMES: Any = pa.schema([("component", pa.uint64()), ("clusterId", pa.string())])
"""The id of a component that shares fans with an old cluster."""

CLUSTERS: Any = pa.schema(
    [
        pa.field("globalUserId", pa.string(), nullable=False),
        pa.field("clusterId", pa.string(), nullable=False),
        pa.field("clusterSize", pa.int64(), nullable=False),
        pa.field("updatedAt", pa.int64(), nullable=False),
    ]
)
"""The result: what ``startClusterImport`` reads. ``updatedAt`` is in epoch milliseconds."""


def encode_table(table: Table) -> bytes:
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def decode_tables(encoded: Iterable[bytes], schema: Any) -> Table:
    """One table of many encoded ones.

    Args:
        encoded: from ``encode_table``.
        schema: of each of them; for none, that of the result.
    """
    tables = [pa.ipc.open_stream(data).read_all() for data in encoded]
    return pa.concat_tables(tables).combine_chunks() if tables else schema.empty_table()


def numbers(table: Table, column: str) -> Nodes:
    """A column of unsigned 64-bit integers without nulls."""
    return table.column(column).to_numpy()


def named_fans(names: Mapping[str, int], partitions: int) -> Iterator[tuple[int, Table]]:
    """Fans by partition.

    Args:
        names: the hash of each name.
        partitions: how many; a fan's is its hash modulo their number.
    """
    fans = np.fromiter(names.values(), np.uint64, len(names))
    return spread(pa.table([pa.array(fans), pa.array(names, pa.string())], schema=NAMED), "fan", partitions)


def spread(table: Table, by: str, partitions: int) -> Iterator[tuple[int, Table]]:
    """A table's rows by partition: a column's number modulo how many there are."""
    if not table.num_rows:
        return
    partition = numbers(table, by) % np.uint64(partitions)
    order = np.argsort(partition, kind="stable")
    sorted_table = table.take(pa.array(order))
    first = starts(partition[order])
    for start, end in zip(first.tolist(), [*first[1:].tolist(), len(order)], strict=True):
        yield int(partition[order[start]]), sorted_table.slice(start, end - start)


def once_each(table: Table, by: str) -> Table:
    """A table sorted by a column of numbers, with one row for each: the last one there is."""
    values = numbers(table, by)
    order = np.argsort(values, kind="stable")
    first = starts(values[order])
    last = np.append(first[1:], len(order)) - 1 if len(order) else first
    return table.take(pa.array(order[last]))
