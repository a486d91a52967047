"""The account fan score: what a seller's sale asks of a fan, from their raw score and three boosts.

``score = clamp(rawScore + arm + event + model, 0, 100)``; the reference's example is 75 + 5 + 4 + 3 = 87.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LEAST: Final = 0.0
MOST: Final = 100.0
_DECIMALS: Final = 2  # scores are hundredths, see domain/scorecard.py


def _arm_points() -> dict[int, float]:
    return {1: 5.0, 2: 2.0, 3: 0.0, 4: -10.0, 5: -25.0}


def _event_points() -> dict[str, float]:
    return {"low": 0.0, "medium": 2.0, "high": 4.0, "extreme": 4.0}


def _model_points() -> tuple[tuple[float, float], ...]:
    return ((0.1, 3.0), (0.5, 0.0), (0.9, -10.0), (1.0, -25.0))


@dataclass(frozen=True)
class Boosts:
    """Points a fan gains or loses.

    Attributes:
        arm: by account risk, 1 (least) to 5.
        event: by how great the demand for the event is: `low` to `extreme`.
        model: (bot-or-not score up to and including, points), ascending; a score beyond the last has its points.
    """

    arm: Mapping[int, float] = field(default_factory=_arm_points)
    event: Mapping[str, float] = field(default_factory=_event_points)
    model: tuple[tuple[float, float], ...] = field(default_factory=_model_points)

    def __post_init__(self) -> None:
        points = [*self.arm.values(), *self.event.values(), *(value for pair in self.model for value in pair)]
        if not all(math.isfinite(value) for value in points):
            raise ValueError("boosts are finite numbers")
        bounds = [bound for bound, _ in self.model]
        if bounds != sorted(set(bounds)):
            raise ValueError("the model's boosts are written in ascending order of their bounds")

    def of_arm(self, arm_score: int | None) -> float:
        """Points for an account risk; 0 for an unknown one."""
        return 0.0 if arm_score is None else self.arm.get(arm_score, 0.0)

    def of_event(self, demand_level: str | None) -> float:
        """Points for an event's demand; 0 for an unknown one."""
        return 0.0 if demand_level is None else self.event.get(demand_level, 0.0)

    def of_model(self, bot_score: float | None) -> float:
        """Points for a bot-or-not score from 0 (fan) to 1 (bot); 0 for an unknown one."""
        if bot_score is None or not self.model:
            return 0.0
        return next((points for bound, points in self.model if bot_score <= bound), self.model[-1][1])


DEFAULT_BOOSTS: Final = Boosts()


def fan_score(raw_score: float, arm: float, event: float, model: float) -> float:
    """The account fan score.

    >>> fan_score(75, 5, 4, 3)
    87.0

    Args:
        raw_score: 0 to 100.
        arm: points for the account risk.
        event: points for the event's demand.
        model: points for the bot-or-not score.

    Returns:
        0 to 100, in hundredths.
    """
    return min(max(round(math.fsum((raw_score, arm, event, model)), _DECIMALS), LEAST), MOST)
