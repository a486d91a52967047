"""What an import would change, in sentences and figures: the one wording of report, terminal and JSON."""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final

import msgspec

from .activity import format_time_ms
from .import_comparison import SIZE_CLASSES
from .imports import ARM_LEVELS, Comparison, ImportKind, State, VersionRecord

_LARGE_JUMPS: Final = (3, 2, 1)  # levels of ARM; a few fans thrown from 2 to 5 matter more than many from 2 to 3

_BAD: Final[Mapping[str, str]] = {
    "malformed": "not readable",
    "blank_user": "no fan's id",
    "user_too_long": "a fan's id that is too long",
    "missing_value": "no value",
    "cluster_too_long": "a cluster's id that is too long",
    "not_a_number": "NaN as the score",
    "out_of_range": "a score that is not from 0 to 1",
    "too_old": "from before 2000",
    "in_future": "in the future",
}


class Books(msgspec.Struct, frozen=True, rename="camel"):
    """What became of the rows that were read: ``rows = bad + repeated + fans``, a fan having one row that counts.

    Attributes:
        rows: of the files.
        bad: rows that could not be read or break a rule.
        repeated: rows of fans that had another row which won.
        fans: of the version, one row each.
    """

    rows: int
    bad: int
    repeated: int
    fans: int

    @property
    def unaccounted(self) -> int:
        """Rows read less rows found again: 0, or there is a defect of fan-identity."""
        return self.rows - self.bad - self.repeated - self.fans


def books(comparison: Comparison) -> Books:
    """The books of a comparison's rows."""
    return Books(comparison.rows, comparison.total_bad, comparison.repeated, comparison.fans)


def bad_words(reason: str) -> str:
    """The plain words for a reason of ``Comparison.bad``; one that is not known stays as it is."""
    return _BAD.get(reason, reason)


def counted(number: int, one: str, more: str | None = None) -> str:
    """A number with its noun: ``1 fan``, ``12,431 fans``.

    Args:
        number: how many.
        one: the noun (and what follows it) where there is one.
        more: where there are none or several; ``one`` with an s, if not given.
    """
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def headline(record: VersionRecord) -> list[str]:
    """What the version changes, the most important first: sentences without a full stop.

    >>> from fan_identity.domain.imports import ImportKind
    >>> arm = tuple(tuple(310 if (a, b) == (2, 5) else 0 for b in range(1, 6)) for a in range(1, 6))
    >>> comparison = Comparison(compared_with="u", fans=500, changed=310, unchanged=190, arm=arm)
    >>> headline(VersionRecord("v", ImportKind.BOT_OR_NOT, State.STAGED, (), "", 0, comparison=comparison))[0]
    '310 fans change ARM, all of them from 2 to 5'
    """
    comparison = record.comparison
    if not comparison.fans:
        return ["the files have no usable row", *_rows(comparison)]
    if not _differs(comparison):
        return [f"nothing changes: {_all(comparison.fans)} the same value as before", *_rows(comparison)]
    return [
        *_arm(comparison),
        *_clusters(comparison),
        *_fans(comparison),
        *_rows(comparison),
    ]


def _differs(comparison: Comparison) -> bool:
    return bool(comparison.added or comparison.removed or comparison.changed)


def _all(fans: int) -> str:
    return "the only fan has" if fans == 1 else f"all {fans:,} fans have"


def _arm(comparison: Comparison) -> Iterator[str]:
    """How many fans change ARM, the move that matters most, and in which direction they go."""
    total = comparison.arm_changes
    if not total:
        yield "no fan changes ARM"
        return
    before, after, number = _gravest_move(comparison)
    which = "" if total == 1 else "all of them " if number == total else f"{number:,} of them "
    yield f"{counted(total, 'fan changes', 'fans change')} ARM, {which}from {before} to {after}"
    riskier = sum(sum(row[level + 1 :]) for level, row in enumerate(comparison.arm))
    if riskier == total:
        yield f"{counted(riskier, 'fan gets', 'fans get')} riskier, none less risky"
    elif not riskier:
        yield f"{counted(total, 'fan gets', 'fans get')} less risky, none riskier"
    else:
        yield f"{counted(riskier, 'fan gets', 'fans get')} riskier, {total - riskier:,} less risky"


def _gravest_move(comparison: Comparison) -> tuple[int, int, int]:
    """ARM before, after, and fans: the most frequent move by three levels or more; where none is, by two; by one."""
    moves = [
        (number, after > before, before + 1, after + 1)
        for before, row in enumerate(comparison.arm)
        for after, number in enumerate(row)
        if number and before != after
    ]
    for levels in _LARGE_JUMPS:
        large = [move for move in moves if abs(move[2] - move[3]) >= levels]
        if large:
            number, _, before, after = max(large)
            return before, after, number
    raise ValueError("no fan changes ARM")


def _clusters(comparison: Comparison) -> Iterator[str]:
    clusters = comparison.clusters
    if clusters is None:
        return
    if comparison.compared_with is None and clusters.after:
        yield f"{counted(clusters.after, 'cluster is', 'clusters are')} new"
    elif clusters.split or clusters.merged:
        split = counted(clusters.split, "cluster splits", "clusters split") if clusters.split else "no cluster splits"
        merge = {0: "none merges", 1: "1 merges"}.get(clusters.merged, f"{clusters.merged:,} merge")
        yield f"{split}, {merge}"
    else:
        yield "no cluster splits or merges"


def _fans(comparison: Comparison) -> Iterator[str]:
    new = counted(comparison.added, "fan is new", "fans are new") if comparison.added else "no fan is new"
    if comparison.compared_with is None:
        yield f"{new}: no version was active before"
        return
    lose = {0: "none loses its value", 1: "1 loses its value"}
    yield f"{new}, {lose.get(comparison.removed, f'{comparison.removed:,} lose their value')}"
    change = counted(comparison.changed, "fan gets", "fans get") if comparison.changed else "no fan gets"
    keep = {0: "none keeps its value", 1: "1 keeps its value"}
    yield f"{change} another value, {keep.get(comparison.unchanged, f'{comparison.unchanged:,} keep theirs')}"


def _rows(comparison: Comparison) -> Iterator[str]:
    if comparison.older:
        yield f"{counted(comparison.older, 'fan keeps', 'fans keep')} a stored value that is newer than the files'"
    if comparison.total_bad:
        yield f"{counted(comparison.total_bad, 'row is', 'rows are')} bad and left out"
    if comparison.repeated:
        yield f"{counted(comparison.repeated, 'row repeats', 'rows repeat')} a fan and did not win"


def verdict(record: VersionRecord, *, refused: str | None, dry_run: bool) -> str:
    """What becomes of the version, in a few words.

    Args:
        record: of the version.
        refused: why it must not become active, or None.
        dry_run: whether the run ends after the comparison.
    """
    if refused is not None:
        return "Dry run: would be refused" if dry_run else "Refused"
    if dry_run:
        return "Dry run: would become active"
    if record.state is State.STAGING and not _differs(record.comparison):
        return "Nothing to do"
    return {
        State.STAGING: "Not active",
        State.STAGED: "Not active yet",
        State.ACTIVE: "Active",
        State.REPLACED: "Replaced by a newer version",
        State.ROLLED_BACK: "Rolled back",
        State.DELETING: "Being deleted",
    }[record.state]


def record_json(record: VersionRecord) -> dict[str, Any]:
    """A version for machines: the record in camelCase as it is stored, with times in ISO 8601 and what follows from it.

    Added are ``headline``, ``books`` and, in the comparison, ``armChanges`` and ``totalBad``.
    """
    comparison = record.comparison
    accounts = books(comparison)
    plain: dict[str, Any] = msgspec.to_builtins(record)
    return {
        **plain,
        "startedAt": format_time_ms(record.started_at),
        "newestRowAt": format_time_ms(record.newest_row_at) if record.newest_row_at else None,
        "headline": headline(record),
        "books": {**msgspec.to_builtins(accounts), "unaccounted": accounts.unaccounted},
        "comparison": {
            **plain["comparison"],
            "armChanges": comparison.arm_changes,
            "totalBad": comparison.total_bad,
        },
    }


def score_text(score: float) -> str:
    """A bot-or-not score for people, to four decimals at most: ``0.25``."""
    return f"{score:.4f}".rstrip("0").rstrip(".")


def arm_totals(comparison: Comparison) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Fans of the ARM matrix by ARM before, and by ARM after; each of five levels, 1 first."""
    before = tuple(sum(row) for row in comparison.arm)
    after = tuple(sum(row[level] for row in comparison.arm) for level in range(ARM_LEVELS))
    return before, after


def value_bins(record: VersionRecord) -> list[tuple[str, int, int]]:
    """The bins of ``Comparison.values_before`` and ``values_after``: label, fans before, fans after.

    A bot-or-not score's bin is a tenth, named by its ends; a cluster's is its number of fans from a power of two to
    below the next, without the empty ones at the end. The last of ``SIZE_CLASSES`` has no end.
    """
    before, after = record.comparison.values_before, record.comparison.values_after
    label = _tenth if record.kind is ImportKind.BOT_OR_NOT else _size
    bins = [
        (label(number), of_before, of_after)
        for number, (of_before, of_after) in enumerate(zip_longest(before, after, fillvalue=0))
    ]
    while record.kind is ImportKind.CLUSTER and bins and not any(bins[-1][1:]):
        bins.pop()
    return bins


def _tenth(number: int) -> str:
    return f"{number / 10:.1f}\N{EN DASH}{(number + 1) / 10:.1f}"


def _size(number: int) -> str:
    smallest, largest = 2**number, 2 ** (number + 1) - 1
    if number >= SIZE_CLASSES - 1:
        return f"{smallest:,}+"
    return f"{smallest:,}\N{EN DASH}{largest:,}" if largest > smallest else f"{smallest:,}"
