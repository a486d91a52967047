"""What imports do to a score: a bot-or-not score and a cluster from elsewhere, on top of what the model said.

An import knows what the model cannot see (other shops, payment data, who shares a device), so it may raise a fan's
risk. It never lowers it: a wrong or stale import then costs a fan a slower sale, and cannot wave a bot through that the
model had found. Effects stand in the score as two further reasons, so that a score still adds up exactly; they can be
taken back exactly, since the item remembers what the model said.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from .activity import format_time_ms, parse_time_ms
from .imports import ARM_LEVELS, Cluster, ImportKind
from .keys import causal_version
from .scorecard import IMPORT_REASON_CODES, SCALE
from .scores import CacheEntry, cache_entry, latest_item

BON_REASON: Final = IMPORT_REASON_CODES["importedBonScore"]
CLUSTER_REASON: Final = IMPORT_REASON_CODES["clusterSize"]

BON_POINTS: Final = 40
"""Points a certain bot (1.0) loses; none at 0.5, where the import says nothing, and in a straight line between. Even an
account of 100 then ends at 60, which the packaged model calls ARM 5 (it does below 65.61)."""

BON_ARM: Final = ((0.9, 5), (0.75, 4), (0.5, 3))
"""From a bot-or-not score on, the ARM is at least this: even odds the middle, 3 to 1 and 9 to 1 one level more each."""

CLUSTER_POINTS: Final = ((100, 20), (20, 10), (5, 5))
"""From a cluster's size on, points its fans lose. Under 5 may be a household. The packaged model's ARM levels are some
5 points wide, so this is one, two and four levels; at most half of what a certain bot loses, since a fan may have come
into a cluster by accident."""

CLUSTER_ARM_SIZE: Final = 20
"""From this size on, a cluster raises the ARM by one: more accounts than a family or a group of friends has."""


class ImportedValues(msgspec.Struct, frozen=True, gc=False):
    """What the active imports say of a fan.

    Attributes:
        bon_score: probability of a bot, 0 to 1; None where none is imported.
        cluster: the fan's cluster; None where none is imported.
    """

    bon_score: float | None = None
    cluster: Cluster | None = None


NOTHING_IMPORTED: Final = ImportedValues()


def imported_values(items: Mapping[ImportKind, Mapping[str, Any] | None]) -> ImportedValues:
    """What a fan's items in active versions say, by kind; a kind without an item says nothing."""
    bon, cluster = items.get(ImportKind.BOT_OR_NOT), items.get(ImportKind.CLUSTER)
    if bon is None and cluster is None:
        return NOTHING_IMPORTED
    return ImportedValues(
        None if bon is None else float(bon["bonScore"]),  # DynamoDB gives a whole number as an int
        None if cluster is None else Cluster(cluster["clusterId"], cluster["clusterSize"]),
    )


class Rescored(NamedTuple):
    """A fan's newest score under other imports, ready to be written.

    Attributes:
        version: of ``latest`` and ``cache``: the same cause under a newer import is newer.
        latest: the ``LATEST`` item.
        score: the score item that ``latest`` repeats.
        cache: the ARM cache's entry.
    """

    version: str
    latest: dict[str, Any]
    score: dict[str, Any]
    cache: CacheEntry


def bon_points(bon_score: float) -> int:
    """Hundredths of a point an imported bot-or-not score adds to the account score: 0 to -4,000."""
    return -max(round(BON_POINTS * SCALE * (2 * bon_score - 1)), 0)


def cluster_points(size: int) -> int:
    """Hundredths of a point a cluster of a size adds to the account score: 0 or less."""
    return -SCALE * next((points for least, points in CLUSTER_POINTS if size >= least), 0)


def raised_arm(arm_risk: int, values: ImportedValues) -> int:
    """The ARM, 1 to 5, that a model's becomes under imports."""
    if values.bon_score is not None:
        arm_risk = max(arm_risk, next((arm for least, arm in BON_ARM if values.bon_score >= least), 1))
    if values.cluster is not None and values.cluster.size >= CLUSTER_ARM_SIZE:
        arm_risk = min(arm_risk + 1, ARM_LEVELS)
    return arm_risk


def without_imports(item: Mapping[str, Any]) -> dict[str, Any]:
    """A score item as the model alone would have it. One that no import had an effect on is the same."""
    model = item.get("model")
    if model is None:
        return dict(item)
    plain = {name: value for name, value in item.items() if name not in ("model", "clusterSize")}
    return plain | {
        "accountScore": model["accountScore"],
        "armRisk": model["armRisk"],
        "bonScore": model["bonScore"],
        "clusterId": None,
        "reasons": item["reasons"][: model["reasons"]],
    }


def with_imports(item: Mapping[str, Any], values: ImportedValues) -> dict[str, Any]:
    """A score item as it is under imports, whatever imports it was under before.

    Account score: the points of both effects are added, the bot-or-not score's first, as far as the score is above 0.
    Each effect that takes points or raises the ARM is a further reason at the end of ``reasons``. The imported
    bot-or-not score stands in the place of the model's. ``model`` keeps what the model said, and how many of the
    reasons are its own.

    Args:
        item: as ``score_item`` makes it, or as this made it; also a ``LATEST`` item. Of any model.
        values: what the active imports say of its fan.

    Returns:
        The item: with nothing imported byte for byte as the model alone has it; the same values again change nothing.
    """
    plain = without_imports(item)
    if values == NOTHING_IMPORTED:
        return plain
    reasons = list(plain["reasons"])
    before = left = max(round(plain["accountScore"] * SCALE), 0)
    for code, value, points in _effects(values):
        taken = max(points, -left)
        left += taken
        reasons.append({"code": code, "value": value, "points": taken / SCALE})
    changed: dict[str, Any] = {
        "accountScore": plain["accountScore"] if left == before else left / SCALE,
        "armRisk": raised_arm(plain["armRisk"], values),
        "reasons": reasons,
    }
    if values.bon_score is not None:
        changed["bonScore"] = values.bon_score
    if values.cluster is not None:
        changed |= {"clusterId": values.cluster.cluster_id, "clusterSize": values.cluster.size}
    changed["model"] = {
        **{name: plain[name] for name in ("accountScore", "armRisk", "bonScore")},
        "reasons": len(plain["reasons"]),
    }
    return {**plain, **changed}


def _effects(values: ImportedValues) -> list[tuple[str, float, int]]:
    """Reason code, value and hundredths of a point of whatever takes points or raises the ARM."""
    effects: list[tuple[str, float, int]] = []
    if values.bon_score is not None and values.bon_score >= BON_ARM[-1][0]:
        effects.append((BON_REASON, values.bon_score, bon_points(values.bon_score)))
    if values.cluster is not None and values.cluster.size >= CLUSTER_POINTS[-1][0]:
        effects.append((CLUSTER_REASON, values.cluster.size, cluster_points(values.cluster.size)))
    return effects


def rescored(latest: Mapping[str, Any], values: ImportedValues, generation: int, written_at_ms: int) -> Rescored:
    """A fan's newest score as it is under other imports, without asking the model again.

    Args:
        latest: the fan's ``LATEST`` item, under whatever imports.
        values: what the active imports say of the fan.
        generation: of the active imports; see ``causal_version``.
        written_at_ms: the time of writing, epoch milliseconds.
    """
    item = {**with_imports(latest, values), "SK": latest["scoreSK"], "dateUpdated": format_time_ms(written_at_ms)}
    del item["scoreSK"]
    time_ms = parse_time_ms(latest["occurredAt"])
    version = causal_version(time_ms, latest["activityId"], generation, latest.get("verificationResults", 0))
    return Rescored(version, latest_item(item), item, cache_entry(item, version, time_ms))
