"""Arithmetic on blocks of a graph: what one worker does with its part, in numpy, without a step a record.

A *block* is an array of shape ``(2, n)`` of unsigned 64-bit integers. Nodes are keyed hashes, so their order is a
random one and their low bits spread them evenly: both are relied on. Columns are

- *edges*: two nodes that belong together;
- *roots*: a node and the smallest node it is connected to in some block;
- *labels*: a node and its component's label.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.uint64]
Nodes = npt.NDArray[np.uint64]

CHUNK_PAIRS: Final = 250_000
"""Pairs of one Beam element, 4 MB: runners limit an element's size (Dataflow's shuffle: 80 MB)."""

_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


class Contracted(NamedTuple):
    """A graph one round smaller.

    Attributes:
        dropped: nodes that are in no edge any more, each with the node that now stands for it.
        edges: among the nodes that are left; they connect what was connected.
    """

    dropped: Block
    edges: Block


def pairs(first: Nodes, second: Nodes) -> Block:
    """A block of two columns of the same length."""
    return np.stack((first, second))


def empty() -> Block:
    """A block without pairs."""
    return np.empty((2, 0), np.uint64)


def decode(data: bytes) -> Block:
    """A block from its bytes, without copying."""
    return np.frombuffer(data, np.uint64).reshape(2, -1)


def concatenate(blocks: Iterable[bytes]) -> Block:
    """One block of many encoded ones."""
    decoded = [decode(data) for data in blocks]
    return np.concatenate(decoded, axis=1) if decoded else empty()


def split(block: Block, by: int, partitions: int) -> Iterator[tuple[int, bytes]]:
    """Spreads pairs over partitions, as elements ``(partition, encoded block)``.

    Args:
        block: of nodes.
        by: the column, 0 or 1, whose nodes decide.
        partitions: how many, at least 1. Where it is half of another number, so is a node's partition.
    """
    if partitions == 1:
        parts = [(0, block)] if block.shape[1] else []
    else:
        partition = (block[by] % np.uint64(partitions)).astype(np.uint16 if partitions <= 1 << 16 else np.uint32)
        order = np.argsort(partition, kind="stable")  # of 16 bits: a radix sort
        ends = np.cumsum(np.bincount(partition, minlength=partitions))
        block = block[:, order]
        begins = np.concatenate(([0], ends[:-1]))
        parts = [
            (at, block[:, start:end]) for at, (start, end) in enumerate(zip(begins, ends, strict=True)) if end > start
        ]
    for at, part in parts:
        for chunk in chunks(part):
            yield at, chunk


def chunks(block: Block) -> Iterator[bytes]:
    """A block as elements of ``CHUNK_PAIRS`` pairs, encoded."""
    for start in range(0, block.shape[1], CHUNK_PAIRS):
        yield block[:, start : start + CHUNK_PAIRS].tobytes()


def distinct(block: Block) -> tuple[Block, npt.NDArray[np.intp]]:
    """Each pair once, in order, and how often it was there."""
    ordered = block[:, np.lexsort((block[1], block[0]))]
    if not ordered.shape[1]:
        return ordered, np.empty(0, np.intp)
    changes = np.logical_or(ordered[0, 1:] != ordered[0, :-1], ordered[1, 1:] != ordered[1, :-1])
    first = np.flatnonzero(np.concatenate(([True], changes)))
    return ordered[:, first], np.diff(first, append=ordered.shape[1])


def starts(ordered: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Where each run of equal values begins."""
    if not len(ordered):
        return np.empty(0, np.intp)
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def mix(numbers: Nodes, key: int) -> Nodes:
    """Makes nodes of integers: two different ones stay different, and their order is as good as random.

    The finalizer of splitmix64 (Steele, Lea, Flood 2014), a bijection.

    Args:
        numbers: any.
        key: another key, another order; 64 bits.
    """
    mixed = numbers + np.uint64(key)
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def roots_of(edges: Block) -> Block:
    """Every node of a block with the smallest one it is connected to in the block, itself where it is the smallest.

    Trees are hooked to smaller roots and flattened until no edge connects two trees (Shiloach and Vishkin 1982); with
    nodes in random order a few passes are enough, however long a path is.
    """
    count = edges.shape[1]
    nodes, places = np.unique(edges.reshape(-1), return_inverse=True)
    places = places.astype(np.int64 if len(nodes) >= 1 << 31 else np.int32)
    left, right = places[:count], places[count:]
    parent = np.arange(len(nodes), dtype=places.dtype)
    while True:
        left, right = parent[left], parent[right]
        apart = left != right
        if not apart.any():
            return pairs(nodes, nodes[parent])
        left, right = left[apart], right[apart]
        np.minimum.at(parent, np.maximum(left, right), np.minimum(left, right))
        while not np.array_equal(flatter := parent[parent], parent):
            parent = flatter


def contract(roots: Block) -> Contracted:
    """Makes a graph smaller by the nodes that are root nowhere; each hands on what it connects.

    A node that lies in several blocks connects their roots: each is tied to the smallest of them. A node that is itself
    one of the roots stays, tied like the others; any other is dropped and the smallest root stands for it.

    Args:
        roots: all pairs of these nodes, from every block that holds them, in any order.
    """
    if not roots.shape[1]:
        return Contracted(empty(), empty())
    node, root = roots[:, np.argsort(roots[0])]
    first = starts(node)
    smallest = np.minimum.reduceat(root, first)
    stays = np.logical_or.reduceat(root == node, first)
    tied = np.repeat(smallest, np.diff(first, append=len(node)))
    others = root != tied
    return Contracted(
        pairs(node[first][~stays], smallest[~stays]),
        pairs(root[others], tied[others]),
    )


def resolve(dropped: Block, labels: Block) -> Block:
    """The labels of dropped nodes, of what stands for them, and those already known.

    Args:
        dropped: from ``contract``.
        labels: of the nodes that stand for them. One that has none was left without edges: it is its own label.

    Returns:
        Each node once.
    """
    labels = labels[:, np.argsort(labels[0])]
    node, parent = dropped
    place, known = find(labels[0], parent)
    label = parent.copy()
    label[known] = labels[1][place[known]]
    own = np.unique(parent[~known])
    return np.concatenate((labels, pairs(node, label), pairs(own, own)), axis=1)


def find(sorted_nodes: Nodes, wanted: Nodes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where nodes stand among sorted ones, and whether they do; the place of one that does not means nothing."""
    if not len(sorted_nodes):
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), np.bool_)
    place = np.minimum(np.searchsorted(sorted_nodes, wanted), len(sorted_nodes) - 1)
    return place, sorted_nodes[place] == wanted


def finish(roots: Block) -> Block:
    """Labels of all nodes, where one worker has what is left of the graph."""
    dropped, edges = contract(roots)
    return resolve(dropped, roots_of(edges))
