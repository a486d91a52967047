"""What an import does to scores: its fans held against their latest items, and these written anew."""

# pyarrow has no type stubs; what comes from it is Any or unknown here and typed in the results. Its kernels are made
# when it is loaded, so no tool sees their names.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ..domain.import_comparison import arm_matrix, best_examples, value_classes
from ..domain.import_effects import ImportedValues, imported_values, rescored, with_imports
from ..domain.import_merge import differs, in_both
from ..domain.imports import ArmChange, Cluster, Comparison, ImportKind
from ..domain.keys import LATEST_SK, user_pk
from .clock import now_ms
from .ports import ArmCache, FanImports, Item, Table

_LOOKED_UP: Final = 2_000
"""Fans whose latest items are read at once."""


@dataclass(frozen=True)
class Active:
    """What a new version is compared with.

    Attributes:
        version: the active version of the same kind, or None.
        other_version: the active version of the other kind, or None: its values count too.
    """

    version: str | None
    other_version: str | None


def compare_fans(kind: ImportKind, active: Active, table: Table, fans: Any) -> tuple[Any, Comparison]:
    """What a bucket of a new version would do.

    Args:
        kind: of the import.
        active: the versions that count now.
        table: has the fans' latest items.
        fans: ``Merged.fans``, for clusters with a column ``size`` added.

    Returns:
        What is to be staged, ``user``, ``value`` (null: the fan has none any more), ``updatedAt``, ``size`` for
        clusters, ``known`` and ``changed``; and the report.
    """
    fans = fans.append_column("changed", differs(fans))
    # Who was known stays so; of the others, and of those whose value differs, the latest item is read.
    known = pc.and_(pc.invert(fans["changed"]), pc.fill_null(fans["knownBefore"], False))
    scored, moves, examples = compare_scores(kind, active, table, fans.filter(pc.invert(known)).to_pylist())
    found = iter(scored)
    flags = [flag or next(found) for flag in known.to_pylist()]
    fans = fans.append_column("known", pa.array(flags, type=pa.bool_()))
    sizes = ["size"] if "size" in fans.column_names else []
    now, was = fans.filter(pc.is_valid(fans["value"])), fans.filter(pc.is_valid(fans["valueBefore"]))
    both = fans.filter(in_both(fans))
    changed = _true(both["changed"])
    measure, measure_before = ("size", "sizeBefore") if sizes else ("value", "valueBefore")
    report = Comparison(
        compared_with=active.version,
        fans=now.num_rows,
        unknown=now.num_rows - _true(now["known"]),
        added=now.num_rows - both.num_rows,
        removed=was.num_rows - both.num_rows,
        changed=changed,
        unchanged=both.num_rows - changed,
        arm=arm_matrix(moves),
        examples=best_examples(examples),
        values_after=value_classes(kind, now[measure].to_numpy()),
        values_before=value_classes(kind, was[measure_before].to_numpy()),
    )
    return fans.select(["user", "value", "updatedAt", *sizes, "known", "changed"]), report


def _true(column: Any) -> int:
    return int(pc.sum(column).as_py() or 0)


def compare_scores(
    kind: ImportKind, active: Active, table: Table, fans: Sequence[Mapping[str, Any]]
) -> tuple[list[bool], Counter[tuple[int, int]], list[ArmChange]]:
    """What fans' scores are now and would be.

    Args:
        kind: of the import.
        active: the versions that count now.
        table: has the fans' latest items.
        fans: rows of a merged table.

    Returns:
        For each fan whether it was ever scored; how many scored fans go from which ARM to which; examples of those
        whose ARM changes.
    """
    known: list[bool] = []
    changes: Counter[tuple[int, int]] = Counter()
    examples: list[ArmChange] = []
    for start in range(0, len(fans), _LOOKED_UP):
        page = fans[start : start + _LOOKED_UP]
        keys = [user_pk(fan["user"]) for fan in page]
        latest = table.batch_get([(pk, LATEST_SK) for pk in keys])
        others = _other_values(kind, active, table, keys)
        for fan, item, other in zip(page, latest, others, strict=True):
            known.append(item is not None)
            if item is None or not fan["changed"]:
                continue
            after = with_imports(item, _imported(kind, fan["value"], fan.get("size"), other))
            before_arm, after_arm = int(item["armRisk"]), int(after["armRisk"])
            changes[before_arm, after_arm] += 1
            if before_arm != after_arm:
                examples.append(_example(fan, item, after))
        examples = list(best_examples(examples))
    return known, changes, examples


def _other_values(kind: ImportKind, active: Active, table: Table, keys: Sequence[str]) -> list[Item | None]:
    if active.other_version is None:
        return [None] * len(keys)
    return table.batch_get([(pk, kind.other.fan_sk(active.other_version)) for pk in keys])


def _imported(kind: ImportKind, value: Any, size: int | None, other: Item | None) -> ImportedValues:
    """What both kinds of import say of a fan, one of them new."""
    values = imported_values({kind.other: other})
    if kind is ImportKind.BOT_OR_NOT:
        return msgspec.structs.replace(values, bon_score=value)
    return msgspec.structs.replace(values, cluster=None if value is None else Cluster(value, size or 1))


def _example(fan: Mapping[str, Any], before: Item, after: Item) -> ArmChange:
    return ArmChange(
        global_user_id=fan["user"],
        arm_before=int(before["armRisk"]),
        arm_after=int(after["armRisk"]),
        score_before=float(before["accountScore"]),
        score_after=float(after["accountScore"]),
        value_before=fan["valueBefore"],
        value_after=fan["value"],
    )


def follow_fans(users: Sequence[str], table: Table, cache: ArmCache | None, imports: FanImports) -> int:
    """Writes fans' newest scores anew where the active imports make a difference.

    The ARM cache first and the latest item last: where this is killed between, the fan still differs and is gone over
    again. Newer wins: a score caused by a newer activity meanwhile stays.

    Args:
        users: global user ids.
        table: the fan identity table.
        cache: the ARM cache, or None.
        imports: what is active.

    Returns:
        How many of them it made a difference for.
    """
    latest = table.batch_get([(user_pk(user), LATEST_SK) for user in users])
    generation, values = imports.values(users)
    now = now_ms()
    changed = [
        rescored(item, value, generation, now)
        for item, value in zip(latest, values, strict=True)
        if item is not None and with_imports(item, value) != item
    ]
    table.batch_put([after.score for after in changed])
    if cache is not None:
        cache.put_if_newer([(after.cache.key, after.version, after.cache.value) for after in changed])
    table.put_if_newer([(after.version, after.latest) for after in changed])
    return len(changed)
