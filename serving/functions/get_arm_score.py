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


GET_ARM_SCORE = Function("getArmScore", "arm_scoring", request, response, writes=frozenset({"armScore", "armBoost"}))
