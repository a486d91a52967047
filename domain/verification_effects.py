"""What an identity verification does to a score: a further reason, bounded, before imports have their say.

A passed check says that somebody showed a document, not that no program acts for them: verified accounts are traded. So
it makes up for one ARM level of what the model found, and no more. A failed one may be glare on a photograph; it costs
what a cluster of twenty does, and puts the fan at least in the middle. Imports are applied to what this leaves
(``import_effects``): whatever an import takes is taken whole, and the least ARM it demands holds over a passed check.
Decision 19 says why.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .activity import format_time_ms
from .scorecard import ARM_LEVELS, MAX_SCORE, SCALE, VERIFICATION_REASON_CODES, ModelScore
from .verification import Status, Verification

_DAY_MS: Final = 24 * 60 * 60_000

PASSED_REASON: Final = VERIFICATION_REASON_CODES["daysSinceVerified"]
FAILED_REASON: Final = VERIFICATION_REASON_CODES["daysSinceFailedCheck"]


class Effect(NamedTuple):
    """What a status does.

    Attributes:
        code: of the reason.
        points: added to the account score, which stays between 0 and 100.
        levels: added to the ARM, which stays between 1 and 5.
        least_arm: the ARM is at least this.
    """

    code: str
    points: int
    levels: int
    least_arm: int


EFFECTS: Final[Mapping[Status, Effect]] = {
    Status.PASSED: Effect(PASSED_REASON, points=5, levels=-1, least_arm=1),
    Status.FAILED: Effect(FAILED_REASON, points=-10, levels=1, least_arm=3),
}
"""By status. The packaged model's ARM levels are some 5 points wide, so points and levels say the same."""


def counts_itself(score: ModelScore) -> bool:
    """Whether a model has counted the verification it was told of: it names one of our codes among its reasons."""
    return any(reason.code in (PASSED_REASON, FAILED_REASON) for reason in score.reasons)


def with_verification(item: Mapping[str, Any], verification: Verification, as_of_ms: int) -> dict[str, Any]:
    """A score item as it is for a fan whose identity was verified, or was not.

    Args:
        item: as ``score_item`` makes it, under no imports yet.
        verification: the one that ``deciding`` chose.
        as_of_ms: when what caused the score happened, epoch milliseconds.

    Returns:
        The item with the points, the ARM, one more reason at the end (its value: whole days since the check), and
        ``verification``. One whose status has no effect leaves it as it is.
    """
    effect = EFFECTS.get(verification.status)
    if effect is None:
        return dict(item)
    before = round(item["accountScore"] * SCALE)
    after = min(max(before + effect.points * SCALE, 0), MAX_SCORE * SCALE)
    days = max(as_of_ms - verification.time_ms, 0) // _DAY_MS
    return {
        **item,
        "accountScore": after / SCALE,
        "armRisk": max(min(max(item["armRisk"] + effect.levels, 1), ARM_LEVELS), effect.least_arm),
        "reasons": [*item["reasons"], {"code": effect.code, "value": days, "points": (after - before) / SCALE}],
        "verification": {
            "status": verification.status.value,
            "occurredAt": format_time_ms(verification.time_ms),
        },
    }
