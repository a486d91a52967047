"""getArmScore: a fan's account risk from the ARM cache, and the points it is worth."""

from typing import Any

from ..context import Context
from ..data_sources import ArmScore
from ..pipeline import Function


async def request(ctx: Context) -> ArmScore | None:
    """Looks the fan up."""
    return await ctx.sources.arm.get(ctx.args["globalUserId"])


def response(ctx: Context) -> int | None:
    """Stashes account risk and points; with the cache away the boost is 0."""
    ctx.degrade()
    arm_score = None if ctx.result is None else ctx.result.arm_score
    ctx.stash["armScore"] = arm_score
    ctx.stash["armBoost"] = ctx.request.boosts.of_arm(arm_score)
    return arm_score


def lookup_response(ctx: Context) -> dict[str, Any] | None:
    """Account risk with its age and model; None for an unknown fan alone."""
    ctx.raise_error()
    arm: ArmScore | None = ctx.result
    if arm is None:
        return None
    return {
        "score": arm.arm_score,
        "ageSeconds": arm.age_seconds(),
        "modelVersion": arm.model_version,
        "stale": arm.stale,
    }


GET_ARM_SCORE = Function("getArmScore", "arm_scoring", request, response, writes=frozenset({"armScore", "armBoost"}))

LOOK_UP_ARM_SCORE = Function("getArmScore", "arm_scoring", request, lookup_response)
"""The lookup for its own sake: there an outage is an error, never null."""
