"""calcAccountScore: the account fan score with all its boosts, from what was stashed."""

from typing import Any

from ...domain.fanscore import fan_score
from ..context import Context
from ..pipeline import Function


async def request(ctx: Context) -> None:
    """Asks nobody."""
    del ctx


def response(ctx: Context) -> dict[str, Any] | None:
    """The score, or None for a fan nobody has scored."""
    raw = ctx.stash.get("rawScore", ctx.stash.get("score"))
    if raw is None:
        return None
    event = ctx.stash.get("eventData") or {}
    boosts = ctx.request.boosts
    arm = ctx.stash.get("armBoost", 0.0)
    of_event = boosts.of_event(event.get("demandLevel"))
    of_model = boosts.of_model(ctx.stash.get("botScore"))
    return {
        "score": fan_score(raw, arm, of_event, of_model),
        "rawScore": raw,
        "boosts": {"arm": arm, "event": of_event, "model": of_model},
    }


CALC_ACCOUNT_SCORE = Function(
    "calcAccountScore",
    "none",
    request,
    response,
    reads=frozenset({"score", "rawScore", "armBoost", "eventData", "botScore"}),
)
