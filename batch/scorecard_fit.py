"""Fits the points of a scorecard: a binned additive logistic regression with an L2 penalty.

A feature's bins are coded as a thermometer (one column an edge, 1 where the value is at or above it), so a column's
coefficient is the *step* at its edge. The penalty on steps smooths neighbouring bins, and a bound on their sign makes
a feature monotone: more failures never make an account look more like a fan. None has a column of its own, but for
``UNHELD``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ..domain.profile import FEATURES
from ..domain.scorecard import MAX_SCORE, SCALE, FeatureBins

Floats = npt.NDArray[np.float64]

FALLS: Final = -1
FREE: Final = 0
RISES: Final = 1

_SHARES: Final = (0.05, 0.15, 0.3, 0.5, 0.75, 0.95)

BINS: Final[dict[str, tuple[tuple[float, ...], int]]] = {
    "activityCount": ((3, 8, 20, 50, 120, 400), FALLS),
    "activitiesPerMinute": ((0.5, 1, 2, 4, 7, 12, 25, 60), FALLS),
    "lastMinuteCount": ((4, 7, 12, 20, 40, 80), FALLS),
    "lastTenMinutesCount": ((8, 15, 30, 60, 120, 300), FALLS),
    "gapRegularity": ((0.1, 0.15, 0.2, 0.3, 0.45, 0.7), FALLS),
    "fastGapShare": ((0.05, 0.15, 0.3, 0.5, 0.75), FALLS),
    "sessionBreakShare": ((0.01, 0.05, 0.15, 0.4), FREE),
    "distinctAddresses": ((2, 3, 4, 6, 10), FALLS),
    "distinctDevices": ((2, 3, 5), FALLS),
    "distinctEvents": ((2, 3, 5, 9, 20), FALLS),
    "failureShare": ((0.02, 0.1, 0.2, 0.35, 0.5, 0.75), FALLS),
    "loginShare": ((0.01, *_SHARES), FREE),
    "searchShare": ((0.01, *_SHARES), FALLS),
    "purchaseShare": ((0.01, *_SHARES[:-1]), FREE),
    "assetShare": ((0.01, 0.1, 0.25, 0.45), RISES),
    "typeVariety": ((2, 3, 4, 6), RISES),
    "distinctHoursOfDay": ((2, 3, 5, 8, 12, 18), FALLS),
    "nightShare": ((0.5,), FREE),
    "sameTypeRepeatShare": ((0.1, 0.25, 0.4, 0.6, 0.8, 0.95), FALLS),
}
"""Edges of each feature's bins, and how the account score may move as the feature grows."""

UNHELD: Final = frozenset({"distinctAddresses", "distinctDevices", "distinctEvents"})
"""Features whose None is scored like their lowest bin: what a client does not send is not held against it."""


UNJUDGED: Final = frozenset({"nightShare"})
"""Features that are in the profile for people to see and get no points: they would cost fans for their working hours
or their time zone. Another model may weigh them."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Profiles to learn from.

    Attributes:
        values: of ``FEATURES``, one row a profile; NaN for None.
        is_fan: 1.0 for fans, 0.0 for bots.
        weights: how much each row counts.
    """

    values: Floats
    is_fan: Floats
    weights: Floats


@dataclass(frozen=True, slots=True)
class Points:
    """A fitted scorecard's points, in hundredths.

    Attributes:
        base: the score of an average account.
        features: bins by feature.
        per_logit: hundredths of a point a unit of log-odds is worth.
    """

    base: int
    features: dict[str, FeatureBins]
    per_logit: float


def fit_points(rows: Rows, *, penalty: float, bins: Mapping[str, tuple[tuple[float, ...], int]] = BINS) -> Points:
    """Fits points whose sum stays within 0 to 100 whatever the profile.

    Fans and bots count the same in sum, whatever their numbers.

    Args:
        rows: at least one fan and one bot.
        penalty: L2 strength on every step, relative to a total row weight of 1.
        bins: edges and direction of each feature.

    Raises:
        ValueError: fans or bots are missing.
    """
    weights = rows.weights.copy()
    for group in (rows.is_fan == 1, rows.is_fan == 0):
        if not group.any():
            raise ValueError("rows of fans and of bots are both needed")
        weights[group] /= 2 * weights[group].sum()
    columns: list[Floats] = []
    bounds: list[tuple[float | None, float | None]] = []
    for index, name in enumerate(FEATURES):
        values = rows.values[:, index]
        edges, direction = bins[name]
        columns += [(values >= edge).astype(np.float64) for edge in edges]  # NaN is at or above nothing
        unknown = np.isnan(values) & (name not in UNHELD)
        columns.append(unknown.astype(np.float64))
        if name in UNJUDGED:
            bounds += [(0.0, 0.0)] * (len(edges) + 1)
            continue
        bound = {FALLS: (None, 0.0), RISES: (0.0, None), FREE: (None, None)}[direction]
        bounds += [bound] * len(edges) + [(None, None)]
    steps = _bounded_logistic(np.column_stack(columns), rows.is_fan, weights, bounds, penalty)
    return _to_points(rows, weights, steps, bins)


def _bounded_logistic(
    design: Floats,
    target: Floats,
    weights: Floats,
    bounds: Sequence[tuple[float | None, float | None]],
    penalty: float,
) -> Floats:
    """Minimises the weighted logistic loss plus the penalty; the intercept is free and not returned."""
    from scipy.optimize import minimize  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs,reportUnknownVariableType]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        steps, intercept = parameters[:-1], parameters[-1]
        logits = design @ steps + intercept
        likelihood = np.logaddexp(0.0, logits) - target * logits
        residual = weights * (1.0 / (1.0 + np.exp(-logits)) - target)
        gradient = np.append(design.T @ residual + penalty * steps, residual.sum())
        return float(weights @ likelihood + 0.5 * penalty * (steps @ steps)), gradient

    result = cast("Any", minimize)(
        loss,
        np.zeros(design.shape[1] + 1),
        jac=True,
        method="L-BFGS-B",
        bounds=[*bounds, (None, None)],
        # Tight, so that rounding to hundredths of a point gives the same file on every machine.
        options={"maxiter": 5_000, "maxfun": 10_000, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 30},
    )
    solution: Floats = result.x
    return solution[:-1]


def _to_points(rows: Rows, weights: Floats, steps: Floats, bins: Mapping[str, tuple[tuple[float, ...], int]]) -> Points:
    """Centres each feature on its average row and scales all to fill 0 to 100."""
    logits: dict[str, Floats] = {}
    position = 0
    for index, name in enumerate(FEATURES):
        edges, _ = bins[name]
        levels = np.concatenate(([0.0], np.cumsum(steps[position : position + len(edges)])))
        unknown = steps[position + len(edges)]
        position += len(edges) + 1
        values = rows.values[:, index]
        known = ~np.isnan(values)
        each = np.full(len(values), unknown)
        each[known] = levels[np.searchsorted(np.array(edges, dtype=np.float64), values[known], side="right")]
        logits[name] = np.append(levels, unknown) - weights @ each
    spread = sum(float(levels.max() - levels.min()) for levels in logits.values())
    # Rounding can widen each feature's range by one hundredth.
    per_logit = (MAX_SCORE * SCALE - len(FEATURES)) / max(spread, 1.0)
    features: dict[str, FeatureBins] = {}
    lowest = 0
    for name, levels in logits.items():
        points = [round(float(level) * per_logit) for level in levels]
        features[name] = FeatureBins(bins[name][0], tuple(points[:-1]), points[-1])
        lowest += min(points)
    return Points(-lowest, features, per_logit)
