"""Cluster ids that stay while clusters grow, merge and split, and the record of what became of each.

A new cluster takes over the id of the old one it shares most fans with. Pairs of an old and a new cluster are gone
through by the fans they share, most first; each old id is given once and each new cluster takes one. Ties go to the
smaller old id, then to the new cluster with the smaller smallest member: so the result depends on who is in which
cluster, and on no order.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

_ID_DIGITS: Final = 20


class Overlap(NamedTuple):
    """Fans that were in one cluster and are in another now.

    Attributes:
        new: names the new cluster within this run.
        old: the old cluster's id.
        fans: how many, at least 1.
    """

    new: int
    old: str
    fans: int


class Lineage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What became of an old cluster.

    Attributes:
        cluster_id: its id.
        fans: it had.
        to: the clusters its fans are in now, with their number, most first.
        left: of its fans, those that are in no cluster now.
        kept: a cluster still has its id.
        split: its fans are in two clusters or more.
        merged: a cluster its fans are in has fans of other old clusters too.
    """

    cluster_id: str
    fans: int
    to: tuple[tuple[str, int], ...] = ()
    left: int = 0
    kept: bool = False
    split: bool = False
    merged: bool = False

    @property
    def changed(self) -> bool:
        """Whether there is anything to tell: fans that joined a cluster are told by its size alone."""
        return self.split or self.merged or bool(self.left) or not self.kept


def new_cluster_id(run: str, smallest_member: str) -> str:
    """The id of a cluster that takes over none: ``c`` and 20 hex digits.

    Args:
        run: names what was built from what: the time and the previous clusters' digest. A cluster that comes to be
            later with the same smallest member is another one.
        smallest_member: the first of its fans' ids in text order.
    """
    return "c" + hashlib.sha256(f"{run}\0{smallest_member}".encode()).hexdigest()[:_ID_DIGITS]


def assign_ids(overlaps: Iterable[Overlap], smallest: Mapping[int, str]) -> dict[int, str]:
    """The old ids new clusters take over, by new cluster; one that takes none is not in it.

    Args:
        overlaps: each pair of an old and a new cluster once.
        smallest: the smallest member of each new cluster in ``overlaps``.
    """
    taken: set[str] = set()
    ids: dict[int, str] = {}
    for overlap in sorted(overlaps, key=lambda one: (-one.fans, one.old, smallest[one.new])):
        if overlap.new not in ids and overlap.old not in taken:
            ids[overlap.new] = overlap.old
            taken.add(overlap.old)
    return ids


def lineages(overlaps: Iterable[Overlap], ids: Mapping[int, str], left: Mapping[str, int]) -> Iterator[Lineage]:
    """What became of every old cluster, in the order of their ids.

    Args:
        overlaps: each pair of an old and a new cluster once.
        ids: of every new cluster in ``overlaps``.
        left: fans of old clusters that are in no cluster now, by the old id.
    """
    by_old: dict[str, list[tuple[str, int]]] = defaultdict(list)
    sources: dict[str, int] = defaultdict(int)
    for overlap in overlaps:
        by_old[overlap.old].append((ids[overlap.new], overlap.fans))
        sources[ids[overlap.new]] += 1
    for old in sorted({*by_old, *left}):
        to = sorted(by_old.get(old, ()), key=lambda one: (-one[1], one[0]))
        gone = left.get(old, 0)
        yield Lineage(
            old,
            sum(fans for _, fans in to) + gone,
            tuple(to),
            gone,
            kept=any(new == old for new, _ in to),
            split=len(to) > 1,
            merged=any(sources[new] > 1 for new, _ in to),
        )
