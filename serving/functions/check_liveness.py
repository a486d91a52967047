"""checkLiveness: starts an identity check (a Face Liveness session) and stores it in the verification table."""

import hashlib
from typing import Any

from ...domain.activity import format_time_ms
from ...domain.keys import user_pk
from ...io.clock import now_ms
from ..context import Context, not_configured
from ..data_sources import LivenessSession
from ..pipeline import Function


async def request(ctx: Context) -> LivenessSession:
    """Starts a session and stores it; a request repeated under its correlation id starts no second one."""
    if ctx.sources.identity_checks is None:
        raise not_configured("the identity check", "identity_checks")
    global_user_id = ctx.args["globalUserId"]
    token = hashlib.sha256(f"{global_user_id}\0{ctx.request.correlation_id}".encode()).hexdigest()
    session = await ctx.sources.identity_checks.start(global_user_id, token)
    item = {
        "PK": user_pk(global_user_id),
        "SK": f"LIVENESS#{session.session_id}",
        "type": "liveness",
        "globalUserId": global_user_id,
        "sessionId": session.session_id,
        "status": session.status,
        "armRisk": ctx.stash.get("armScore"),
        "accountScore": ctx.stash.get("score"),
        "dateUpdated": format_time_ms(now_ms()),
    }
    await ctx.sources.verification.put_revision(item, 0)  # False: this session is stored already
    return session


def response(ctx: Context) -> dict[str, Any]:
    """The session's id and status."""
    ctx.raise_error()
    return {"sessionId": ctx.result.session_id, "status": ctx.result.status}


CHECK_LIVENESS = Function(
    "checkLiveness",
    "idv_check_liveness",
    request,
    response,
    reads=frozenset({"armScore", "score"}),
    has_effect=True,
)
