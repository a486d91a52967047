"""calcAccountScore: the account fan score with all its boosts, from what was stashed."""

from collections.abc import Mapping
from typing import Any

from ...domain.fanscore import fan_score
from ..context import Context, unavailable
from ..pipeline import Function


async def request(ctx: Context) -> None:
    """Asks nobody."""
    del ctx


def response(ctx: Context) -> dict[str, Any] | None:
    """The score, or None for a fan nobody has scored.

    Raises:
        FunctionError: 503, there is no score and a table was away.
    """
    raw = ctx.stash.get("rawScore", ctx.stash.get("score"))
    if raw is None:
        # A table that was away may have had it: unknown and unavailable are never mixed up.
        if (error := ctx.stash.get("scoreError")) is not None:
            raise unavailable(error)
        return None
    event: Mapping[str, Any] = ctx.stash.get("eventData") or {}
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
    reads=frozenset({"score", "rawScore", "scoreError", "armBoost", "eventData", "botScore"}),
)
