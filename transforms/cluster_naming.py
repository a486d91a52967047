"""From components to clusters: their fans by id, the ids clusters keep, and what became of the old ones.

``JoinFans → (Summarize → AssignIds) → NameClusters``. Everything but the second step is spread over partitions of fans
or of components. The second holds one row for each pair of an old and a new cluster that share fans, in one place:
which cluster takes an id depends on all that want it.
"""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import AsList, TaggedOutput
from typing_extensions import override

from ..domain.cluster_ids import Overlap, assign_ids, lineages, new_cluster_id
from . import cluster_blocks as blocks
from .batches import count
from .cluster_tables import (
    CLUSTERS,
    MEMBERS,
    NAMED,
    NAMES,
    OVERLAPS,
    Table,
    decode_tables,
    encode_table,
    numbers,
    once_each,
    spread,
)
from .components import Keyed

REVIEW: Final = "review"
LINEAGE: Final = "lineage"
_GONE: Final = "gone"

_encode = msgspec.json.Encoder().encode


@dataclass
class SplitLabels(beam.PTransform[Any, Any]):
    """Encoded blocks of labels, by the fan's partition."""

    partitions: int

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | _typed(_Split(self.partitions), Keyed)


class _Split(beam.DoFn):
    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    @override
    def process(self, element: bytes, *args: Any, **kwargs: Any) -> Iterator[Keyed]:
        return blocks.split(blocks.decode(element), 0, self._partitions)


@dataclass
class JoinFans(beam.PTransform[Any, Any]):
    """``{fans, labels, previous}``, each by the fan's partition, to (``members``, ``gone``).

    ``members``: tables of fans with their component, by the component's partition. ``gone``: overlaps of old clusters
    with no component. Counts ``clustered`` (fans) and ``alone`` (fans in no cluster).

    Attributes:
        partitions: of components.
    """

    partitions: int

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        step: Any = beam.ParDo(_Join(self.partitions)).with_output_types(Keyed, **{_GONE: bytes})
        grouped: Any = input_or_inputs | beam.CoGroupByKey()
        return grouped | step.with_outputs(_GONE, main="members")


class _Join(beam.DoFn):
    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    @override
    def process(self, element: tuple[int, Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
        joined = element[1]
        labels = blocks.concatenate(joined["labels"])
        labels = labels[:, np.argsort(labels[0])]
        fans = once_each(decode_tables(joined["fans"], NAMED), "fan")
        previous = once_each(decode_tables(joined["previous"], NAMED), "fan")
        place, clustered = blocks.find(labels[0], numbers(fans, "fan"))
        members = fans.filter(pa.array(clustered))
        count("clustered", members.num_rows)
        count("alone", fans.num_rows - members.num_rows)
        old, known = blocks.find(numbers(previous, "fan"), numbers(members, "fan"))
        before = previous.column("name").take(pa.array(old, mask=~known))
        component = pa.array(labels[1][place[clustered]])
        table = pa.table([component, members.column("name"), before], schema=MEMBERS)
        for partition, part in spread(table, "component", self._partitions):
            yield partition, encode_table(part)
        _, stayed = blocks.find(labels[0], numbers(previous, "fan"))
        gone = Counter(previous.column("name").filter(pa.array(~stayed)).to_pylist())
        if gone:
            yield TaggedOutput(_GONE, encode_table(_overlaps([(None, None, old, fans) for old, fans in gone.items()])))


def _overlaps(rows: list[tuple[int | None, str | None, str, int]]) -> Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(OVERLAPS)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, OVERLAPS, strict=True)], OVERLAPS)


class Summarize(beam.PTransform[Any, Any]):
    """Grouped members, by the component's partition, to overlaps with old clusters."""

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | _typed(_Summarize(), bytes)


class _Summarize(beam.DoFn):
    @override
    def process(self, element: tuple[int, Iterable[bytes]], *args: Any, **kwargs: Any) -> Iterator[bytes]:
        members = decode_tables(element[1], MEMBERS)
        known = members.filter(members.column("previous").is_valid())
        if known.num_rows:
            shared = known.group_by(["component", "previous"]).aggregate([("user", "count")])
            smallest = members.group_by("component").aggregate([("user", "min")])
            table = shared.join(smallest, "component")
            columns = ("component", "user_min", "previous", "user_count")
            yield encode_table(pa.table([table.column(name).combine_chunks() for name in columns], schema=OVERLAPS))


@dataclass
class AssignIds(beam.PTransform[Any, Any]):
    """All overlaps to (``names``, ``lineage``), in one place; about 300 bytes a pair of clusters.

    ``names``: tables of the ids of components that share fans with old clusters. ``lineage``: JSON lines, one for each
    old cluster that changed, sorted; as one text. Counts ``old.<what>`` of old clusters: ``clusters``, ``same``,
    ``split``, ``merged``, ``ended``.

    Attributes:
        run: names the run in new ids.
    """

    run: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        step: Any = beam.ParDo(_Assign(self.run)).with_output_types(bytes, **{LINEAGE: str})
        all_of_them: Any = input_or_inputs | _typed(_Together(), Keyed) | beam.GroupByKey()
        return all_of_them | step.with_outputs(LINEAGE, main="names")


class _Together(beam.DoFn):
    @override
    def process(self, element: bytes, *args: Any, **kwargs: Any) -> Iterator[Keyed]:
        yield 0, element


class _Assign(beam.DoFn):
    def __init__(self, run: str) -> None:
        self._run = run

    @override
    def process(self, element: tuple[int, Iterable[bytes]], *args: Any, **kwargs: Any) -> Iterator[Any]:
        overlaps: list[Overlap] = []
        smallest: dict[int, str] = {}
        left: Counter[str] = Counter()
        table = decode_tables(element[1], OVERLAPS)
        for component, first, old, fans in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if component is None:
                left[old] += fans
            else:
                overlaps.append(Overlap(component, old, fans))
                smallest[component] = first
        taken = assign_ids(overlaps, smallest)
        ids = {new: taken.get(new) or new_cluster_id(self._run, first) for new, first in smallest.items()}
        names = [pa.array(ids.keys(), pa.uint64()), pa.array(ids.values(), pa.string())]
        yield encode_table(pa.table(names, schema=NAMES))
        lines: list[bytes] = []
        for lineage in lineages(overlaps, ids, left):
            count("old.clusters", 1)
            count("old.same", not lineage.changed)
            count("old.split", lineage.split)
            count("old.merged", lineage.merged)
            count("old.ended", not lineage.to)
            if lineage.changed:
                lines.append(_encode(lineage))
        if lines:
            yield TaggedOutput(LINEAGE, b"\n".join(lines).decode())


@dataclass
class NameClusters(beam.PTransform[Any, Any]):
    """Grouped members, by the component's partition, to tables of clusters (``CLUSTERS``): (``clusters``, ``review``).

    ``review`` has those of too many fans. Counts ``clusters``, ``review_clusters``, ``review_fans`` and ``size.<n>``:
    clusters of at most n fans and over half as many, n a power of two.

    Attributes:
        names: a collection of tables of ids, from ``AssignIds``.
        run: as there.
        review_size: the most fans of a cluster that needs no review.
        updated_at: when, epoch milliseconds.
    """

    names: Any
    run: str
    review_size: int
    updated_at: int

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        do_fn = _Name(self.run, self.review_size, self.updated_at)
        step: Any = beam.ParDo(do_fn, AsList(self.names)).with_output_types(bytes, **{REVIEW: bytes})
        return input_or_inputs | step.with_outputs(REVIEW, main="clusters")


class _Name(beam.DoFn):
    def __init__(self, run: str, review_size: int, updated_at: int) -> None:
        self._run = run
        self._review_size = review_size
        self._updated_at = updated_at

    @override
    def process(
        self, element: tuple[int, Iterable[bytes]], names: list[bytes], *args: Any, **kwargs: Any
    ) -> Iterator[Any]:
        members = decode_tables(element[1], MEMBERS).sort_by([("component", "ascending"), ("user", "ascending")])
        if not members.num_rows:
            return
        component = numbers(members, "component")
        first = blocks.starts(component)
        sizes = np.diff(first, append=len(component))
        kept = decode_tables(names, NAMES)
        taken = dict(zip(kept.column("component").to_pylist(), kept.column("clusterId").to_pylist(), strict=True))
        smallest = members.column("user").take(pa.array(first)).to_pylist()
        ids = [
            taken.get(one) or new_cluster_id(self._run, member)
            for one, member in zip(component[first].tolist(), smallest, strict=True)
        ]
        table = pa.table(
            [
                members.column("user"),
                pa.array(ids, pa.string()).take(pa.array(np.repeat(np.arange(len(ids)), sizes))),
                pa.array(np.repeat(sizes, sizes).astype(np.int64)),
                pa.array(np.full(len(component), self._updated_at, np.int64)),
            ],
            schema=CLUSTERS,
        ).sort_by([("clusterId", "ascending"), ("globalUserId", "ascending")])
        large = sizes > self._review_size
        count("clusters", int(np.count_nonzero(~large)))
        count("review_clusters", int(np.count_nonzero(large)))
        count("review_fans", int(sizes[large].sum()))
        for power, number in Counter((size - 1).bit_length() for size in sizes.tolist()).items():
            count(f"size.{1 << power}", number)
        whole = table.column("clusterSize").to_numpy() <= self._review_size
        if whole.any():
            yield encode_table(table.filter(pa.array(whole)))
        if not whole.all():
            yield TaggedOutput(REVIEW, encode_table(table.filter(pa.array(~whole))))


def _typed(do_fn: beam.DoFn, kind: Any) -> Any:
    return beam.ParDo(do_fn).with_output_types(kind)
