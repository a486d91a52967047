"""What the parts of an import say of its effect, added up."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .imports import ARM_LEVELS, EXAMPLES, ArmChange, ClusterChanges, Comparison, ImportKind

SIZE_CLASSES: Final = 21
"""Of clusters, by powers of two: 1, 2 or 3, 4 to 7 … the last one from about a million on."""

TENTHS: Final = 10
_SHOWN_ID: Final = 256
"""Longer ids are no examples: a record has to fit into an item."""

ClusterExample = tuple[str, tuple[tuple[str, int], ...]]


@dataclass(frozen=True)
class PartReport:
    """What a part of an import found.

    Attributes:
        comparison: of this part alone.
        newest_row_at: the newest ``updatedAt`` of its rows, epoch milliseconds; 0 without rows.
    """

    comparison: Comparison
    newest_row_at: int = 0


def added(first: PartReport, second: PartReport) -> PartReport:
    """Both parts together; the order does not matter."""
    a, b = first.comparison, second.comparison
    return PartReport(
        Comparison(
            compared_with=a.compared_with or b.compared_with,
            rows=a.rows + b.rows,
            bad=dict(sorted((Counter(a.bad) + Counter(b.bad)).items())),
            bad_examples=tuple(sorted({*a.bad_examples, *b.bad_examples})[:EXAMPLES]),
            repeated=a.repeated + b.repeated,
            older=a.older + b.older,
            fans=a.fans + b.fans,
            unknown=a.unknown + b.unknown,
            added=a.added + b.added,
            removed=a.removed + b.removed,
            changed=a.changed + b.changed,
            unchanged=a.unchanged + b.unchanged,
            arm=tuple(
                tuple(x + y for x, y in zip(left, right, strict=True)) for left, right in zip(a.arm, b.arm, strict=True)
            ),
            examples=best_examples([*a.examples, *b.examples]),
            values_before=_summed(a.values_before, b.values_before),
            values_after=_summed(a.values_after, b.values_after),
            clusters=_clusters_added(a.clusters, b.clusters),
        ),
        max(first.newest_row_at, second.newest_row_at),
    )


def _summed(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    if not a or not b:
        return tuple(a or b)
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _clusters_added(a: ClusterChanges | None, b: ClusterChanges | None) -> ClusterChanges | None:
    if a is None or b is None:
        return a or b
    return ClusterChanges(
        before=a.before + b.before,
        after=a.after + b.after,
        split=a.split + b.split,
        merged=a.merged + b.merged,
        split_examples=largest_clusters([*a.split_examples, *b.split_examples]),
        merged_examples=largest_clusters([*a.merged_examples, *b.merged_examples]),
    )


def best_examples(examples: Sequence[ArmChange]) -> tuple[ArmChange, ...]:
    """The greatest changes of ARM first, at most ``EXAMPLES`` of each (before, after) and three times that in all."""
    kept: list[ArmChange] = []
    seen: Counter[tuple[int, int]] = Counter()
    for example in sorted(examples, key=_order):
        change = (example.arm_before, example.arm_after)
        if seen[change] < EXAMPLES and len(example.global_user_id) <= _SHOWN_ID:
            seen[change] += 1
            kept.append(example)
    return tuple(kept[: 3 * EXAMPLES])


def _order(example: ArmChange) -> tuple[int, float, str, int, int, float, float]:
    return (
        -abs(example.arm_after - example.arm_before),
        -abs(example.score_after - example.score_before),
        example.global_user_id,
        example.arm_before,
        example.arm_after,
        example.score_before,
        example.score_after,
    )


def largest_clusters(examples: Sequence[ClusterExample]) -> tuple[ClusterExample, ...]:
    """Those with the most fans first, at most ``EXAMPLES``, each with its ten largest parts."""
    ordered = sorted(examples, key=lambda example: (-sum(fans for _, fans in example[1]), *example))
    return tuple(
        (name, tuple(sorted(parts, key=lambda part: (-part[1], part[0]))[:EXAMPLES]))
        for name, parts in ordered[:EXAMPLES]
    )


def arm_matrix(changes: Mapping[tuple[int, int], int]) -> tuple[tuple[int, ...], ...]:
    """Numbers of fans by (ARM before, ARM after), 1 to 5, as five rows of five."""
    levels = range(1, ARM_LEVELS + 1)
    return tuple(tuple(changes.get((before, after), 0) for after in levels) for before in levels)


def value_classes(kind: ImportKind, values: Any) -> tuple[int, ...]:
    """Fans by bot-or-not score in tenths, or by size of their cluster in powers of two.

    Args:
        kind: of the import.
        values: a NumPy array of scores, 0 to 1, or of sizes, at least 1.
    """
    import numpy as np  # noqa: PLC0415 - the rest of this module is needed where NumPy is not

    if kind is ImportKind.BOT_OR_NOT:
        classes, number = np.minimum((values * TENTHS).astype(np.int64), TENTHS - 1), TENTHS
    else:
        classes, number = np.minimum(np.log2(values).astype(np.int64), SIZE_CLASSES - 1), SIZE_CLASSES
    return tuple(int(count) for count in np.bincount(classes, minlength=number))
