"""getFanHistory: a fan's scores, the newest first, with their reasons, from the fan identity table."""

from collections.abc import Mapping
from typing import Any, Final

from ...domain.keys import user_pk
from ..context import Context
from ..pipeline import Function

USUAL: Final = 50
"""Scores shown where nobody says how many."""

LONGEST: Final = 200
"""Scores shown at most. Writing 500 with their reasons took graphql-core 80 ms, in which no lookup is answered."""


async def request(ctx: Context) -> Any:
    """Queries the fan's score items."""
    wanted = max(1, min(int(ctx.args.get("limit") or USUAL), LONGEST))
    return await ctx.sources.fan_identity.query(
        user_pk(ctx.args["globalUserId"]), "SCORE#", newest_first=True, limit=wanted
    )


def response(ctx: Context) -> list[dict[str, Any]]:
    """The scores as the API shows them; an item that has no score is left out."""
    ctx.raise_error()
    items: list[Mapping[str, Any]] = ctx.result
    return [_shown(item) for item in items if isinstance(item.get("accountScore"), int | float)]


def _shown(item: Mapping[str, Any]) -> dict[str, Any]:
    names = ("occurredAt", "activityType", "accountScore", "armRisk", "bonScore", "modelVersion", "clusterId")
    reasons: list[Mapping[str, Any]] = item.get("reasons") or []
    return {
        **{name: item.get(name) for name in names},
        "baseScore": item.get("baseScore"),
        "otherPoints": item.get("otherPoints"),
        "reasons": [{name: reason.get(name) for name in ("code", "value", "points")} for reason in reasons],
    }


GET_FAN_HISTORY = Function("getFanHistory", "fan_identity_table", request, response)
