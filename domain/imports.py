"""Imports: what files say of fans, as versions that are compared, made active in one step, and taken back.

A version is complete in itself: a fan its files do not name has no value in it. Fans are spread over ``BUCKETS`` by a
hash of their id, so that two versions are compared a bucket at a time, whatever their size.
"""

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from .activity import format_time_ms
from .keys import ACTIVE_SK, bon_sk

BUCKETS: Final = 256
"""Parts of a version; a fan's is the first byte of the SHA-256 of the id."""

EXAMPLES: Final = 10
"""Fans named in a comparison for each change of ARM, and clusters for each kind of change."""

ARM_LEVELS: Final = 5

LEASE: Final = "imports"
"""One lock for both kinds: each compares with what is active of the other."""


NAMED_FILES: Final = 50
"""Files a record names: it has to fit into an item, and a folder may hold thousands."""


class ImportKind(StrEnum):
    """What an import brings; the names are those of keys, addresses and the command line."""

    BOT_OR_NOT = "botOrNot"
    CLUSTER = "cluster"

    @property
    def worker(self) -> str:
        """The reference's name of the job: ``startBotOrNotImport``, ``startClusterImport``."""
        return f"start{self.value[0].upper()}{self.value[1:]}Import"

    @property
    def other(self) -> "ImportKind":
        """The kind that this one is not."""
        return ImportKind.CLUSTER if self is ImportKind.BOT_OR_NOT else ImportKind.BOT_OR_NOT

    @property
    def value_column(self) -> str:
        """The column of a file that holds the value, and the attribute of an item."""
        return "bonScore" if self is ImportKind.BOT_OR_NOT else "clusterId"

    @property
    def pk(self) -> str:
        """The partition of its versions and of the pointer to the active one."""
        return f"IMPORT#{self.value}"

    def fan_sk(self, version: str) -> str:
        """The sort key of a fan's value in a version: ``BON#<version>``, ``CLUSTER#<version>``."""
        return bon_sk(version) if self is ImportKind.BOT_OR_NOT else f"CLUSTER#{version}"


class Cluster(msgspec.Struct, frozen=True):
    """A fan's cluster in a version.

    Attributes:
        cluster_id: as the files have it.
        size: how many fans of the version are in it.
    """

    cluster_id: str
    size: int


class Pointer(msgspec.Struct, frozen=True, rename="camel"):
    """Which version readers see. Replaced as a whole, by who knows its generation.

    Attributes:
        import_version: the active version, or None after the first one was taken back.
        generation: how often the pointer was moved; a greater one is newer.
        activated_at: when, epoch milliseconds.
    """

    import_version: str | None = None
    generation: int = 0
    activated_at: int = 0


class State(StrEnum):
    """How far a version came. Whole are those that are or were active; of one being deleted some fans may be gone."""

    STAGING = "staging"
    STAGED = "staged"
    ACTIVE = "active"
    REPLACED = "replaced"
    ROLLED_BACK = "rolledBack"
    DELETING = "deleting"


class ClusterChanges(msgspec.Struct, frozen=True, rename="camel"):
    """How the clusters of two versions differ.

    Attributes:
        before: clusters of the active version.
        after: clusters of the new one.
        split: clusters of the active version whose fans are in two or more of the new one.
        merged: clusters of the new version whose fans come from two or more of the active one.
        split_examples: some that split: the old id, and the new ids with their numbers of fans.
        merged_examples: some that merged: the new id, and the old ids with their numbers of fans.
    """

    before: int = 0
    after: int = 0
    split: int = 0
    merged: int = 0
    split_examples: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    merged_examples: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()


class ArmChange(msgspec.Struct, frozen=True, rename="camel"):
    """A fan whose ARM an import changes, as an example.

    Attributes:
        global_user_id: who.
        arm_before: 1 to 5.
        arm_after: 1 to 5.
        score_before: account score, 0 to 100.
        score_after: likewise.
        value_before: the bot-or-not score or cluster id of the active version, or None.
        value_after: of the new one, or None.
    """

    global_user_id: str
    arm_before: int
    arm_after: int
    score_before: float
    score_after: float
    value_before: float | str | None
    value_after: float | str | None


class Comparison(msgspec.Struct, frozen=True, rename="camel"):
    """What a new version would change.

    Attributes:
        compared_with: the version that was active, or None.
        rows: of the files, bad and repeated ones included.
        bad: rows that could not be read or break a rule, by reason.
        bad_examples: some of them: file, line and what is wrong.
        repeated: rows of fans that had another row which won.
        older: fans whose stored value is newer than the files', so that it stays.
        fans: in the new version.
        unknown: of them, those nobody has ever scored.
        added: fans the active version has no value for.
        removed: fans the new version has no value for.
        changed: fans whose value differs.
        unchanged: fans whose value is the same.
        arm: by ARM before (row) and ARM after (column), fans whose account is affected; five times five, of scored fans
            whose value differs.
        examples: of fans whose ARM changes, the greatest changes first.
        values_before: fans by value in tenths (bot-or-not) or by size of their cluster in powers of two; the active
            version's.
        values_after: likewise, of the new version.
        clusters: how clusters change; None for another kind.
    """

    compared_with: str | None = None
    rows: int = 0
    bad: Mapping[str, int] = {}
    bad_examples: tuple[str, ...] = ()
    repeated: int = 0
    older: int = 0
    fans: int = 0
    unknown: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    unchanged: int = 0
    arm: tuple[tuple[int, ...], ...] = ((0,) * ARM_LEVELS,) * ARM_LEVELS
    examples: tuple[ArmChange, ...] = ()
    values_before: tuple[int, ...] = ()
    values_after: tuple[int, ...] = ()
    clusters: ClusterChanges | None = None

    @property
    def arm_changes(self) -> int:
        """Fans whose ARM changes."""
        return sum(sum(row) for row in self.arm) - sum(self.arm[level][level] for level in range(ARM_LEVELS))

    @property
    def total_bad(self) -> int:
        """Rows that could not be read or break a rule."""
        return sum(self.bad.values())


class Thresholds(msgspec.Struct, frozen=True, rename="camel"):
    """Above these an import is refused before anything is written. Shares are 0 to 1.

    Attributes:
        bad: bad rows, of all rows.
        unknown: fans nobody has ever scored, of the new version's fans.
        removed: fans that would lose their value, of the active version's fans.
        arm_changes: fans whose ARM changes, of the scored fans of both versions together.
    """

    bad: float = 0.01
    unknown: float = 0.2
    removed: float = 0.2
    arm_changes: float = 0.2


def _names_of_record(field: str) -> str:
    # "version" is where DynamoDB tables keep what newer-wins compares.
    head, *rest = ("import_" + field if field == "version" else field).split("_")
    return head + "".join(part.capitalize() for part in rest)


class VersionRecord(msgspec.Struct, frozen=True, rename=_names_of_record):
    """What is kept of a version besides its fans' values.

    Attributes:
        version: ``<time, UTC, seconds>-<8 hex digits of the files' digest>``.
        kind: what it brings.
        state: how far it came.
        files: the files' names, as ``named`` has them.
        digest: of the files' contents (64 hex digits): the same files are not imported twice.
        started_at: epoch milliseconds.
        newest_row_at: the newest ``updatedAt`` of its rows, epoch milliseconds.
        replaced: the version that was active before it, or None.
        followed: whether scores and ARM cache follow it.
        thresholds: it was held against.
        comparison: with what was active when it came.
    """

    version: str
    kind: ImportKind
    state: State
    files: tuple[str, ...]
    digest: str
    started_at: int
    newest_row_at: int = 0
    replaced: str | None = None
    followed: bool = False
    thresholds: Thresholds = Thresholds()
    comparison: Comparison = Comparison()


def named(files: Sequence[str], most: int = NAMED_FILES) -> tuple[str, ...]:
    """The names of files, of many the first ones and how many more there are.

    >>> named(["a", "b", "c"], 2)
    ('a', 'b', 'and 1 more')
    """
    return tuple(files) if len(files) <= most else (*files[:most], f"and {len(files) - most:,} more")


def bucket_of(global_user_id: str) -> int:
    """The bucket of a fan, 0 to 255."""
    return hashlib.sha256(global_user_id.encode()).digest()[0]


def version_name(started_at_ms: int, digest: str) -> str:
    """Names a version so that text order is time order: ``20261126T231500Z-1a2b3c4d``."""
    time = format_time_ms(started_at_ms)[:19].replace("-", "").replace(":", "")
    return f"{time}Z-{digest[:8]}"


def fan_item(
    kind: ImportKind, version: str, user_pk: str, value: float | str, size: int | None, updated_at: int
) -> dict[str, Any]:
    """The item of a fan's value in a version.

    Args:
        kind: what it is.
        version: which.
        user_pk: the fan's partition key.
        value: a bot-or-not score (0 to 1) or a cluster id.
        size: of the cluster; None for another kind.
        updated_at: of the row, epoch milliseconds.
    """
    item: dict[str, Any] = {
        "PK": user_pk,
        "SK": kind.fan_sk(version),
        "type": kind.value,
        kind.value_column: value,
        "updatedAt": format_time_ms(updated_at),
    }
    if size is not None:
        item["clusterSize"] = size
    return item


def pointer_item(kind: ImportKind, pointer: Pointer) -> dict[str, Any]:
    """The item that holds a pointer."""
    return {"PK": kind.pk, "SK": ACTIVE_SK, "type": "import", **msgspec.to_builtins(pointer)}
