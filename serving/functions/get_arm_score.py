"""getArmScore: a fan's account risk from the ARM cache, and the points it is worth."""

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


def lookup_response(ctx: Context) -> ArmScore | None:
    """Account risk with its age and model; None for an unknown fan alone."""
    ctx.raise_error()
    return ctx.result


GET_ARM_SCORE = Function("getArmScore", "arm_scoring", request, response, writes=frozenset({"armScore", "armBoost"}))

LOOK_UP_ARM_SCORE = Function("getArmScore", "arm_scoring", request, lookup_response)
"""The lookup for its own sake: there an outage is an error, never null."""
