"""Connected components of a graph that no worker can hold, in a number of rounds known before the run.

Edges travel as blocks (``cluster_blocks``): one Beam element is up to 250,000 of them. Each round every block is first
reduced to a forest by itself; its nodes, each with its root in the block, are then brought together by node, and every
node that is no root is contracted into one. What is left is a smaller graph, in fewer blocks, so the next block is
again as large as a worker can hold and reduces more. The last round has one block. The way back hands the labels down
to the nodes dropped, round by round.

```
edges → forest ─→ [by node] contract, forest ─→ [by node] contract, forest ─→ … ─→ [one block] finish
                      │ dropped                    │ dropped                          │ labels
labels ←─────── [by parent] resolve ←─────── [by parent] resolve ←─────────────── … ←─┘
```

That smallest neighbours are contracted, in random order, until nothing is left, is the local contraction of Łącki,
Mirrokni and Włodarczyk (Connected Components at Scale via Local Contractions, 2018): the number of rounds grows with
the logarithm of the graph's size, whatever its diameter. That a round is unrolled into the pipeline, and not a loop
around pipelines, lets it run as one job on any runner, without files in between.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from typing_extensions import override

from ..io.errors import UsageError
from . import cluster_blocks as blocks
from .batches import count

Keyed = tuple[int, bytes]
"""A partition and an encoded block: what is shuffled. Both coders are deterministic."""

BLOCK_PAIRS: Final = 1_000_000
"""Pairs one worker holds at once, about: 16 MB, and ten times that while it works on them."""

_MOST_PAIRS: Final = 100
"""A block of so many times ``BLOCK_PAIRS`` ends the run: the plan was made for a much smaller graph."""

_DROPPED: Final = "dropped"
_FORWARD: Final = "shuffled.round"
_BACK: Final = "shuffled.back"


def plan_rounds(edges: int, block_pairs: int = BLOCK_PAIRS) -> tuple[int, ...]:
    """The number of partitions of each round; as many rounds as the result is long.

    Halved from round to round, and one in the last. In the worst case known (a path) a round leaves two thirds of the
    pairs, so that blocks grow by a third a round: 17 times after the ten rounds of a billion edges.

    Args:
        edges: at most so many are expected, about.
        block_pairs: what one worker holds at once.
    """
    partitions = max(1, -(-2 * edges // block_pairs))
    plan = [partitions]
    while plan[-1] > 1:
        plan.append(-(-plan[-1] // 2))
    return tuple(plan)


@dataclass
class ConnectedComponents(beam.PTransform[Any, Any]):
    """Encoded blocks of edges (``bytes``) to encoded blocks of labels (``bytes``): each node once, with its label.

    Nodes must be hashes, or integers made random by ``mix``. Which node is a component's label is arbitrary. Nodes
    without an edge to another one have none. What each round shuffles is counted as ``shuffled.round.<nn>`` (pairs of
    node and root) and, on the way back, as ``shuffled.back.<nn>`` (dropped nodes with their parents, and labels).

    Attributes:
        plan: from ``plan_rounds``.

    Raises:
        UsageError: the graph is much larger than planned for.
    """

    plan: tuple[int, ...]

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        # Beam's types say nothing of what a collection holds; the names and the declared types do.
        collection: Any = input_or_inputs | "Forest" >> _typed(_Forest(self.plan[0]))
        dropped: list[Any] = []
        for level, following in enumerate(self.plan[1:], 1):
            step = beam.ParDo(_Contract(level, self.plan[level - 1], following))
            # Beam leaves these methods without types.
            typed: Any = step.with_output_types(Keyed, **{_DROPPED: Keyed})  # pyright: ignore[reportUnknownMemberType]
            result = (
                collection
                | f"ByNode{level}" >> beam.GroupByKey()
                | f"Contract{level}" >> typed.with_outputs(_DROPPED, main="roots")
            )
            collection = result.roots
            dropped.append(result[_DROPPED])
        last = len(self.plan)
        above = self.plan[-2] if last > 1 else None
        grouped: Any = collection | f"ByNode{last}" >> beam.GroupByKey()
        labels: Any = grouped | f"Finish{last}" >> _labels(_Finish(last, above), above)
        for level in range(last - 1, 0, -1):
            above = self.plan[level - 2] if level > 1 else None
            joined: Any = {"dropped": dropped[level - 1], "labels": labels}
            grouped = joined | f"ByParent{level}" >> beam.CoGroupByKey()
            labels = grouped | f"Resolve{level}" >> _labels(_Resolve(level, above), above)
        return labels


def _typed(do_fn: beam.DoFn) -> Any:
    return beam.ParDo(do_fn).with_output_types(Keyed)  # pyright: ignore[reportUnknownMemberType]


def _labels(do_fn: beam.DoFn, above: int | None) -> Any:
    """Labels for the round above are keyed; those that are the result are not."""
    if above is None:
        return beam.ParDo(do_fn).with_output_types(bytes)  # pyright: ignore[reportUnknownMemberType]
    return _typed(do_fn)


class _Forest(beam.DoFn):
    """A block of edges to its nodes with their roots, by node."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    @override
    def process(self, element: bytes, *args: Any, **kwargs: Any) -> Iterator[Keyed]:
        return blocks.split(blocks.roots_of(blocks.decode(element)), 0, self._partitions)


class _Contract(beam.DoFn):
    """A partition's nodes with their roots to the next round's, and what was dropped, by what stands for it."""

    def __init__(self, level: int, partitions: int, following: int) -> None:
        self._level = level
        self._partitions = partitions
        self._following = following

    @override
    def process(self, element: tuple[int, Iterable[bytes]], *args: Any, **kwargs: Any) -> Iterator[Any]:
        dropped, edges = blocks.contract(_gathered(element[1], f"{_FORWARD}.{self._level:02d}"))
        yield from blocks.split(blocks.roots_of(edges), 0, self._following)
        for keyed in blocks.split(dropped, 1, self._partitions):
            yield TaggedOutput(_DROPPED, keyed)


class _Finish(beam.DoFn):
    """All that is left to labels."""

    def __init__(self, level: int, above: int | None) -> None:
        self._level = level
        self._above = above

    @override
    def process(self, element: tuple[int, Iterable[bytes]], *args: Any, **kwargs: Any) -> Iterator[Any]:
        labels = blocks.finish(_gathered(element[1], f"{_FORWARD}.{self._level:02d}"))
        return _passed_up(labels, self._above)


class _Resolve(beam.DoFn):
    """A partition's dropped nodes, and the labels of what stands for them, to labels."""

    def __init__(self, level: int, above: int | None) -> None:
        self._counter = f"{_BACK}.{level:02d}"
        self._above = above

    @override
    def process(self, element: tuple[int, Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
        joined = element[1]
        labels = blocks.resolve(
            _gathered(joined["dropped"], self._counter),
            _gathered(joined["labels"], self._counter),
        )
        return _passed_up(labels, self._above)


def _passed_up(labels: blocks.Block, above: int | None) -> Iterator[Any]:
    keyed = blocks.split(labels, 0, above or 1)
    return keyed if above is not None else (block for _, block in keyed)


def _gathered(encoded: Iterable[bytes], counter: str) -> blocks.Block:
    block = blocks.concatenate(encoded)
    pairs = block.shape[1]
    count(counter, pairs)
    if pairs > _MOST_PAIRS * BLOCK_PAIRS:
        raise UsageError(
            f"a worker's part of the graph has {pairs:,} pairs, {_MOST_PAIRS} times what was planned; "
            "the input grew since the run began: run the command again"
        )
    return block
