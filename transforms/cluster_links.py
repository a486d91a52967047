"""From what is known of fans to edges between fans who belong together.

``ReadLinks → LinkFans`` and then ``ConnectedComponents``. Identifiers are hashed with the run's key in the step that
reads them: none is shuffled, logged or written. Pairs travel as blocks (``cluster_blocks``) of identifier and fan.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import TaggedOutput
from typing_extensions import override

from ..domain.linking import KINDS, WEAK_NEEDED, LinkKind, LinkRules, fan_hash, identifier_hash, normalize
from ..io.file_ranges import FileRange
from ..io.link_files import read_links
from ..io.link_rows import Links
from ..io.sqlite.links import SqliteLinks
from . import cluster_blocks as blocks
from .batches import count
from .cluster_tables import encode_table, named_fans
from .components import Keyed

Source = FileRange | SqliteLinks

FANS: Final = "fans"
_WEAK: Final = "weak"
_MOST_PAIRS: Final = 4_000_000
"""Pairs of fans with a weak identifier in common that are held at once."""


@dataclass
class ReadLinks(beam.PTransform[Any, Any]):
    """Sources to (``links``, ``fans``).

    ``links``: keyed by kind and partition, blocks of identifier and fan. ``fans``: keyed by the fan's partition, tables
    that tell each fan's id. Counts ``rows``, ``rejected.<reason>``, ``unusable.<kind>`` (identifiers that say nothing)
    and ``links.<kind>``.

    Attributes:
        key: of the hashes, random for each run.
        partitions: of each kind's identifiers, and of fans.
    """

    key: bytes
    partitions: int

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        # Beam leaves these methods without types.
        step: Any = beam.ParDo(_Read(self.key, self.partitions)).with_output_types(Keyed, **{FANS: Keyed})  # pyright: ignore[reportUnknownMemberType]
        # A source a bundle: without it the runner reads all of them one after the other.
        spread = input_or_inputs | beam.Reshuffle()
        return spread | step.with_outputs(FANS, main="links")


class _Read(beam.DoFn):
    def __init__(self, key: bytes, partitions: int) -> None:
        self._key = key
        self._partitions = partitions

    @override
    def process(self, element: Source, *args: Any, **kwargs: Any) -> Iterator[Any]:
        told: set[int] = set()
        for links in element.read() if isinstance(element, SqliteLinks) else read_links(element):
            count("rows", len(links.fans) + links.rejected.total())
            for reason, number in links.rejected.items():
                count(f"rejected.{reason}", number)
            ids = {fan: fan_hash(fan, self._key) for fan in set(links.fans)}
            new = {fan: number for fan, number in ids.items() if number not in told}
            told.update(new.values())
            for partition, table in named_fans(new, self._partitions):
                yield TaggedOutput(FANS, (partition, encode_table(table)))
            fans = np.fromiter(map(ids.__getitem__, links.fans), np.uint64, len(links.fans))
            for code, kind in enumerate(KINDS):
                first = code * self._partitions
                for partition, block in blocks.split(self._linked(kind, links, fans), 0, self._partitions):
                    yield first + partition, block

    def _linked(self, kind: LinkKind, links: Links, fans: blocks.Nodes) -> blocks.Block:
        values = links.values[kind]
        hashes: dict[str | None, int | None] = {None: None}
        for value in set(values):
            if value:
                comparable = value if links.comparable else normalize(kind, value)
                hashes[value] = None if comparable is None else identifier_hash(kind, comparable, self._key)
        hashed = [hashes.get(value) for value in values]
        usable = np.fromiter((number is not None for number in hashed), np.bool_, len(hashed))
        count(f"unusable.{kind}", sum(1 for value in values if value and hashes[value] is None))
        identifiers = np.fromiter((number for number in hashed if number is not None), np.uint64)
        count(f"links.{kind}", len(identifiers))
        return blocks.distinct(blocks.pairs(identifiers, fans[usable]))[0]


@dataclass
class LinkFans(beam.PTransform[Any, Any]):
    """Blocks of identifier and fan, by kind and partition, to encoded blocks of edges between fans (``bytes``).

    Counts ``identifiers.<kind>`` (of two fans or more), ``hubs.<kind>`` (of them, those over the limit),
    ``hub_links.<kind>`` (their fans, summed) and ``weak_links`` (pairs of fans linked by weak identifiers).

    Attributes:
        rules: what counts as a link.
        partitions: as of ``ReadLinks``.
    """

    rules: LinkRules
    partitions: int

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        group: Any = beam.ParDo(_Group(self.rules, self.partitions)).with_output_types(bytes, **{_WEAK: Keyed})  # pyright: ignore[reportUnknownMemberType]
        found = (
            input_or_inputs | "ByIdentifier" >> beam.GroupByKey() | "Group" >> group.with_outputs(_WEAK, main="edges")
        )
        pair: Any = beam.ParDo(_CountPairs()).with_output_types(bytes)  # pyright: ignore[reportUnknownMemberType]
        weak = found[_WEAK] | "ByPair" >> beam.GroupByKey() | "CountPairs" >> pair
        both: Any = (found.edges, weak)
        return both | beam.Flatten()


class _Group(beam.DoFn):
    """A partition of a kind's identifiers to edges; where the kind is weak, to pairs of fans."""

    def __init__(self, rules: LinkRules, partitions: int) -> None:
        self._rules = rules
        self._partitions = partitions

    @override
    def process(self, element: tuple[int, Iterable[bytes]], *args: Any, **kwargs: Any) -> Iterator[Any]:
        kind = KINDS[element[0] // self._partitions]
        limit = self._rules.limits[kind]
        links, _ = blocks.distinct(blocks.concatenate(element[1]))
        first = blocks.starts(links[0])
        sizes = np.diff(first, append=links.shape[1])
        hub = sizes > limit
        count(f"identifiers.{kind}", int(np.count_nonzero(sizes > 1)))
        count(f"hubs.{kind}", int(np.count_nonzero(hub)))
        count(f"hub_links.{kind}", int(sizes[hub].sum()))
        useful = (sizes > 1) & ~hub
        fans = links[1][np.repeat(useful, sizes)]
        sizes = sizes[useful]
        if kind in self._rules.weak:
            for pairs in _all_pairs(fans, sizes):
                for keyed in blocks.split(pairs, 0, self._partitions):
                    yield TaggedOutput(_WEAK, keyed)
        elif len(fans):
            # A star: an identifier's fans are one component, whichever of them the edges go through.
            centre = np.repeat(fans[np.cumsum(sizes) - sizes], sizes)
            yield from blocks.chunks(blocks.pairs(centre, fans)[:, centre != fans])


def _all_pairs(fans: blocks.Nodes, sizes: Any) -> Iterator[blocks.Block]:
    """Every pair of the fans of an identifier, the smaller fan first; a bounded number at once.

    Args:
        fans: of all identifiers, one after the other, sorted within each.
        sizes: how many fans each identifier has.
    """
    start = np.cumsum(sizes) - sizes
    for size in np.unique(sizes).tolist():
        left, right = np.triu_indices(size, 1)
        rows = start[sizes == size]
        step = max(1, _MOST_PAIRS // len(left))
        for at in range(0, len(rows), step):
            begin = rows[at : at + step, np.newaxis]
            yield blocks.pairs(fans[begin + left].reshape(-1), fans[begin + right].reshape(-1))


class _CountPairs(beam.DoFn):
    """Pairs of fans, one for each weak identifier they share, to edges where there are enough."""

    @override
    def process(self, element: tuple[int, Iterable[bytes]], *args: Any, **kwargs: Any) -> Iterator[bytes]:
        pairs, shared = blocks.distinct(blocks.concatenate(element[1]))
        linked = pairs[:, shared >= WEAK_NEEDED]
        count("weak_links", linked.shape[1])
        return blocks.chunks(linked)
