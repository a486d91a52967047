"""tmAccountInfo: who the signed-in fan is, by the account service."""

from ..context import Context, FunctionError, not_configured
from ..data_sources import AccountInfo
from ..pipeline import Function
from ..shared import throw_if_not_logged_in


async def request(ctx: Context) -> AccountInfo | None:
    """Asks for the account of the caller's token."""
    global_user_id = throw_if_not_logged_in(ctx)
    if ctx.sources.accounts is None:
        raise not_configured("the account service", "account_info")
    return await ctx.sources.accounts.info(global_user_id)


def response(ctx: Context) -> dict[str, str | None]:
    """Stashes the account."""
    ctx.raise_error()
    if ctx.result is None:
        raise FunctionError("User not logged in", "401", "NOT_LOGGED_IN")
    info: AccountInfo = ctx.result
    ctx.stash["userInfo"] = {
        "global_user_id": info.global_user_id,
        "member_id": info.member_id,
        "email": info.email,
    }
    return ctx.stash["userInfo"]


TM_ACCOUNT_INFO = Function(
    "tmAccountInfo", "proxy_tm_account_service", request, response, writes=frozenset({"userInfo"})
)
