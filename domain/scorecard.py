"""The embedded model: an additive scorecard over account-activity profiles.

Each feature's range is cut into bins and each bin carries points; a user's account score is the base plus the points
of the bins the profile falls into (the form of credit scorecards: Siddiqi, *Credit Risk Scorecards*, 2006). So every
score explains itself: the points *are* the reasons and add up exactly. Points are integers in hundredths of a point,
centred so that 0 is what an average account gets for that feature.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from .profile import FEATURES, Profile

SCALE = 100  # hundredths of a point in a point
MAX_SCORE = 100
ARM_LEVELS = 5


class ScorecardError(ValueError):
    """A model file that cannot be used; the message is one line saying what is wrong with it."""


class Reason(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What one feature did to a score.

    Attributes:
        code: stable name, upper snake case, such as ``BURST_IN_LAST_MINUTE``.
        feature: one of ``FEATURES``.
        value: the feature's value; None where it was not known yet.
        points: points added to the account score; below 0 is more like a bot than the average account.
    """

    code: str
    feature: str
    value: float | None
    points: float


class ModelScore(msgspec.Struct, frozen=True, rename="camel"):
    """What the model says of a user as of one activity.

    Attributes:
        account_score: 0 to 100, high is like a fan; ``base_score`` plus all reasons' points, exact in hundredths.
        arm_risk: 1 (least) to 5 (most risky).
        bon_score: probability of being a bot, 0 to 1, four decimals.
        base_score: the score of an account that is average in every feature.
        reasons: every feature with an effect, the largest first.
        model_version: names the model file.
    """

    account_score: float
    arm_risk: int
    bon_score: float
    base_score: float
    reasons: tuple[Reason, ...]
    model_version: str


# Feature: (reason code, sentence where the value is known, how to write the value).
_REASONS: Final[dict[str, tuple[str, str, str]]] = {
    "activityCount": ("ACTIVITY_VOLUME", "activities on record: {}", "count"),
    "activitiesPerMinute": ("ACTIVITY_RATE", "activities a minute while active, asset loads aside: {}", "number"),
    "lastMinuteCount": ("BURST_IN_LAST_MINUTE", "activities in the last minute, asset loads aside: {}", "count"),
    "lastTenMinutesCount": (
        "BURST_IN_LAST_TEN_MINUTES",
        "activities in the last ten minutes, asset loads aside: {}",
        "count",
    ),
    "gapRegularity": ("REGULAR_INTERVALS", "{} of pauses are of like length", "share"),
    "fastGapShare": ("FASTER_THAN_A_PERSON", "{} of activities follow the one before within a second", "share"),
    "sessionBreakShare": ("SESSION_BREAKS", "{} of pauses are longer than 30 minutes", "share"),
    "distinctAddresses": ("ADDRESS_COUNT", "network addresses: {}", "count"),
    "distinctDevices": ("DEVICE_COUNT", "devices: {}", "count"),
    "distinctEvents": ("EVENT_COUNT", "events looked at: {}", "count"),
    "failureShare": ("FAILED_ATTEMPTS", "{} of activities failed", "share"),
    "loginShare": ("LOGIN_SHARE", "{} of activities are logins", "share"),
    "searchShare": ("SEARCH_SHARE", "{} of activities are searches", "share"),
    "purchaseShare": ("PURCHASE_SHARE", "{} of activities are steps of a purchase", "share"),
    "assetShare": ("ASSET_LOADS", "{} of activities are images and scripts a browser loads by itself", "share"),
    "typeVariety": ("ACTIVITY_VARIETY", "kinds of activity: {}", "count"),
    "distinctHoursOfDay": ("HOURS_OF_DAY", "active in {} of the day's 24 hours", "count"),
    "sameTypeRepeatShare": ("REPEATS_ITSELF", "{} of activities are of the same kind as the one before", "share"),
    "nightShare": ("NIGHT_ACTIVITY", "{} of activities are between midnight and 6:00 UTC", "share"),
}

REASON_CODES: Final[Mapping[str, str]] = {feature: code for feature, (code, _, _) in _REASONS.items()}
"""The stable reason code of each feature."""


IMPORT_REASON_CODES: Final[Mapping[str, str]] = {
    "importedBonScore": "BOT_OR_NOT_IMPORT",
    "clusterSize": "CLUSTER_SIZE",
}
"""The stable reason code of each value an import brings, by its name as a feature; see ``import_effects.py``."""

VERIFICATION_REASON_CODES: Final[Mapping[str, str]] = {
    "daysSinceVerified": "IDENTITY_VERIFIED",
    "daysSinceFailedCheck": "IDENTITY_CHECK_FAILED",
}
"""The stable reason code of what an identity verification does, likewise; see ``verification_effects.py``."""

_SENTENCES: Final[dict[str, tuple[str, str]]] = {
    **{feature: (sentence, unit) for feature, (_, sentence, unit) in _REASONS.items()},
    "importedBonScore": ("an import says: a bot with a probability of {}", "share"),
    "clusterSize": ("accounts in the same cluster: {}", "count"),
    "daysSinceVerified": ("days since the identity was verified: {}", "count"),
    "daysSinceFailedCheck": ("days since a check of the identity failed: {}", "count"),
}


def describe(reason: Reason) -> str:
    """One plain English sentence on what a feature did to a score.

    >>> describe(Reason("ASSET_LOADS", "assetShare", 0.25, 2.5))
    '+2.50: 25 % of activities are images and scripts a browser loads by itself'

    A feature of another model, unknown here, is told by its name.
    """
    sign = "\N{MINUS SIGN}" if reason.points < 0 else "+"
    return f"{sign}{abs(reason.points):.2f}: {_sentence(reason)}"


def _sentence(reason: Reason) -> str:
    if reason.feature not in _SENTENCES:
        return f"{reason.feature} = {'unknown' if reason.value is None else f'{reason.value:g}'}"
    if reason.value is None:
        return f"not known yet: {reason.feature}"
    template, unit = _SENTENCES[reason.feature]
    if unit == "share":
        return template.format(f"{reason.value * 100:.3g} %")
    return template.format(f"{reason.value:,.0f}" if unit == "count" else f"{reason.value:,.3g}")


class FeatureBins(msgspec.Struct, frozen=True, rename="camel"):
    """One feature's bins, as in the model file.

    Attributes:
        edges: ascending; bin ``i`` holds values from ``edges[i - 1]`` (included) to ``edges[i]`` (excluded).
        points: hundredths of a point, one a bin: one more than edges.
        unknown: hundredths of a point where the value is None.
    """

    edges: tuple[float, ...]
    points: tuple[int, ...]
    unknown: int


class Calibration(msgspec.Struct, frozen=True, rename="camel"):
    """``bon_score = 1 / (1 + exp(-(intercept + slope * account_score)))``; the slope is negative."""

    intercept: float
    slope: float


class ScorecardFile(msgspec.Struct, frozen=True, rename="camel"):
    """The model file. Fields beyond what scoring needs say where it comes from.

    Attributes:
        model_version: such as ``embedded-scorecard-1``.
        description: one sentence.
        base_points: hundredths of a point.
        arm_thresholds: four descending hundredths of a point: at least the first is ARM 1, below the last ARM 5.
        calibration: of ``bon_score``.
        features: bins of each of ``FEATURES``.
        training: how it was trained.
        figures: what it reached on held-out data.
    """

    model_version: str
    description: str
    base_points: int
    arm_thresholds: tuple[int, ...]
    calibration: Calibration
    features: dict[str, FeatureBins]
    training: dict[str, Any] = {}
    figures: dict[str, Any] = {}


_file_decoder = msgspec.json.Decoder(ScorecardFile)


class Scorecard:
    """A checked scorecard, ready to score. Scoring neither clamps nor fails.

    Args:
        file: the model file's content.

    Raises:
        ScorecardError: the content cannot be scored with.
    """

    def __init__(self, file: ScorecardFile) -> None:
        _check(file)
        self.file = file
        self.model_version = file.model_version
        self._base = file.base_points
        self._calibration = (file.calibration.intercept, file.calibration.slope)
        # bisect on the ascending negatives: a score equal to a threshold gets the better level.
        self._arm_edges = [-threshold for threshold in file.arm_thresholds]
        self._features = _ranked_bins(file)

    @classmethod
    def from_json(cls, data: bytes) -> "Scorecard":
        """Reads a model file.

        Raises:
            ScorecardError: not JSON, a feature missing or unheard of, edges out of order, points not integers, or
                points whose sum could leave 0 to 100.
        """
        try:
            file = _file_decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ScorecardError(f"not a scorecard: {error}") from None
        return cls(file)

    def score(self, profile: Profile) -> ModelScore:
        """Scores a profile."""
        total = self._base
        found: list[tuple[int, Reason]] = []
        for value, bins in zip(profile.values, self._features, strict=True):
            points, ranked_reason = bins.seen.get(value) or bins.look_up(value)
            if points:
                total += points
                found.append(ranked_reason)
        found.sort()  # ranks are unique, so reasons are never compared
        intercept, slope = self._calibration
        return ModelScore(
            total / SCALE,
            bisect_left(self._arm_edges, -total) + 1,
            round(_logistic(intercept + slope * total / SCALE), 4),
            self._base / SCALE,
            tuple([reason for _, reason in found]),
            self.model_version,
        )


_CACHED_VALUES = 4_096


class _Bins:
    """One feature's bins, and what was looked up in them before.

    Counts are at most the profile's window and shares have three decimals, so nearly every value has been seen.

    Args:
        code: the feature's reason code.
        feature: its name.
        edges: of the bins.
        points: hundredths of a point, the bin of None last.
        ranks: by size of effect among the bins of all features, aligned to ``points``.
    """

    def __init__(
        self, code: str, feature: str, edges: tuple[float, ...], points: tuple[int, ...], ranks: tuple[int, ...]
    ) -> None:
        self._code = code
        self._feature = feature
        self._edges = edges
        self._points = points
        self._ranks = ranks
        self.seen: dict[float | None, tuple[int, tuple[int, Reason]]] = {}

    def look_up(self, value: float | None) -> tuple[int, tuple[int, Reason]]:
        """The value's points, and its reason behind the rank to sort it by."""
        place = -1 if value is None else bisect_right(self._edges, value)
        points = self._points[place]
        found = points, (self._ranks[place], Reason(self._code, self._feature, value, points / SCALE))
        if len(self.seen) < _CACHED_VALUES:
            self.seen[value] = found
        return found


def _ranked_bins(file: ScorecardFile) -> list[_Bins]:
    """Bins of each of ``FEATURES``.

    Every bin's rank is worked out here, once, so that sorting a score's reasons compares integers only. Bins of equal
    effect rank in the order of ``FEATURES``.
    """
    points = [(*file.features[name].points, file.features[name].unknown) for name in FEATURES]
    places = [(feature, place) for feature, bins in enumerate(points) for place in range(len(bins))]
    places.sort(key=lambda at: -abs(points[at[0]][at[1]]))
    rank = {at: number for number, at in enumerate(places)}
    return [
        _Bins(
            REASON_CODES[name],
            name,
            file.features[name].edges,
            points[feature],
            tuple(rank[feature, place] for place in range(len(points[feature]))),
        )
        for feature, name in enumerate(FEATURES)
    ]


def _logistic(x: float) -> float:
    # Far out, exp would overflow, and four decimals are 0 or 1 long before.
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, x))))


def _check(file: ScorecardFile) -> None:
    if not file.model_version.strip():
        raise ScorecardError("modelVersion is blank")
    if missing := [name for name in FEATURES if name not in file.features]:
        raise ScorecardError(f"features are missing: {', '.join(missing)}")
    if unheard := sorted(set(file.features) - set(FEATURES)):
        raise ScorecardError(f"features are unheard of: {', '.join(unheard)[:200]!r}")
    lowest = highest = file.base_points
    for name in FEATURES:
        bins = file.features[name]
        if len(bins.points) != len(bins.edges) + 1:
            raise ScorecardError(f"{name}: {len(bins.edges)} edges need {len(bins.edges) + 1} points")
        if not (all(map(math.isfinite, bins.edges)) and _ascending(bins.edges)):
            raise ScorecardError(f"{name}: edges are not finite and ascending")
        lowest += min(*bins.points, bins.unknown)
        highest += max(*bins.points, bins.unknown)
    if lowest < 0 or highest > MAX_SCORE * SCALE:
        raise ScorecardError(f"scores could leave 0 to 100: {lowest / SCALE:g} to {highest / SCALE:g}")
    if len(file.arm_thresholds) != ARM_LEVELS - 1 or not _ascending(file.arm_thresholds[::-1]):
        raise ScorecardError("armThresholds are not four descending numbers")
    intercept, slope = file.calibration.intercept, file.calibration.slope
    if not (math.isfinite(intercept) and math.isfinite(slope) and slope < 0):
        raise ScorecardError("calibration: intercept and slope must be finite and the slope below 0")


def _ascending(numbers: Sequence[float]) -> bool:
    return all(lower < higher for lower, higher in pairwise(numbers))
