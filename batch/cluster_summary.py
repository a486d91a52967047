"""What a build of clusters tells of itself: ``_summary.json``."""

from collections.abc import Mapping

import msgspec

from ..domain.linking import KINDS, LinkRules


class KindSummary(msgspec.Struct, frozen=True, rename="camel"):
    """What a kind of identifier was worth.

    Attributes:
        links: pairs of a fan and an identifier read, repeated ones included.
        unusable: identifiers read that say nothing, such as placeholders and private addresses.
        identifiers: shared by two fans or more.
        limit: fans an identifier may have.
        weak: whether it links only in numbers.
        hubs: identifiers over the limit, which link nobody.
        hub_links: their fans, summed.
    """

    links: int
    unusable: int
    identifiers: int
    limit: int
    weak: bool
    hubs: int
    hub_links: int


class ReviewCluster(msgspec.Struct, frozen=True, rename="camel"):
    """A cluster put aside.

    Attributes:
        cluster_id: its id.
        fans: how many.
    """

    cluster_id: str
    fans: int


class ClusterSummary(msgspec.Struct, frozen=True, rename="camel"):
    """What a run did.

    Attributes:
        run: names it in new ids: its time and a digest of the previous clusters.
        updated_at: of its rows, epoch milliseconds.
        seconds: it took.
        rows: read.
        rejected: of them, those left out, by reason.
        clustered: fans in a cluster, those under review included.
        alone: fans that share nothing with another.
        kinds: by the kind's name.
        weak_links: pairs of fans that share weak identifiers enough.
        clusters: written.
        sizes: clusters by size, those under review included: those of at most so many fans, and over half as many.
        review: put aside for their size, the largest first.
        partitions: of each round, as planned.
        shuffled: pairs each round shuffled, the first one first.
        shuffled_back: pairs each step of the way back shuffled, the last round's first.
        previous: old clusters: how many there were, stayed the same, split, merged, ended.
    """

    run: str
    updated_at: int
    seconds: float
    rows: int
    rejected: Mapping[str, int]
    clustered: int
    alone: int
    kinds: Mapping[str, KindSummary]
    weak_links: int
    clusters: int
    sizes: Mapping[int, int]
    review: tuple[ReviewCluster, ...]
    partitions: tuple[int, ...]
    shuffled: tuple[int, ...]
    shuffled_back: tuple[int, ...]
    previous: Mapping[str, int]

    @property
    def rounds(self) -> int:
        """Rounds in which there was something left to do."""
        return sum(1 for pairs in self.shuffled if pairs)


def summarize(
    counts: Mapping[str, int],
    rules: LinkRules,
    rounds: tuple[int, ...],
    review: Mapping[str, int],
    run: str,
    updated_at: int,
    seconds: float,
) -> ClusterSummary:
    """Sums a run up.

    Args:
        counts: its counters.
        rules: it linked by.
        rounds: partitions of each round.
        review: fans of each cluster put aside, by its id.
        run: its name in new ids.
        updated_at: of its rows, epoch milliseconds.
        seconds: it took.
    """

    def of(prefix: str) -> dict[str, int]:
        found = ((name.removeprefix(prefix), number) for name, number in counts.items() if name.startswith(prefix))
        return {name: number for name, number in sorted(found) if number}

    sizes = {int(size): number for size, number in of("size.").items()}
    return ClusterSummary(
        run=run,
        updated_at=updated_at,
        seconds=round(seconds, 3),
        rows=counts.get("rows", 0),
        rejected=of("rejected."),
        clustered=counts.get("clustered", 0),
        alone=counts.get("alone", 0),
        kinds={
            kind.value: KindSummary(
                links=counts.get(f"links.{kind}", 0),
                unusable=counts.get(f"unusable.{kind}", 0),
                identifiers=counts.get(f"identifiers.{kind}", 0),
                limit=rules.limits[kind],
                weak=kind in rules.weak,
                hubs=counts.get(f"hubs.{kind}", 0),
                hub_links=counts.get(f"hub_links.{kind}", 0),
            )
            for kind in KINDS
        },
        weak_links=counts.get("weak_links", 0),
        clusters=counts.get("clusters", 0),
        sizes=dict(sorted(sizes.items())),
        review=tuple(
            ReviewCluster(name, fans) for name, fans in sorted(review.items(), key=lambda one: (-one[1], one[0]))
        ),
        partitions=rounds,
        shuffled=tuple(counts.get(f"shuffled.round.{level:02d}", 0) for level in range(1, len(rounds) + 1)),
        shuffled_back=tuple(counts.get(f"shuffled.back.{level:02d}", 0) for level in range(len(rounds) - 1, 0, -1)),
        previous=of("old."),
    )
