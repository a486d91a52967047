"""Checks that several fields share: the reference's ``shared.ts``."""

from typing import Final

from ..domain.access import Identity
from .context import Context, FunctionError

_MAX_ID_CHARACTERS: Final = 10_000  # longer ids are hashed in keys; this bounds the hashing


def throw_if_not_logged_in(ctx: Context) -> str:
    """The signed-in fan's globalUserId.

    Raises:
        FunctionError: 401, nobody is signed in, or no fan.
    """
    if ctx.identity.user_id is None:
        raise FunctionError("User not logged in", "401", "NOT_LOGGED_IN")
    return ctx.identity.user_id


def require_known(identity: Identity) -> None:
    """Any signed-in fan, service or API key.

    Raises:
        FunctionError: 401.
    """
    if not identity.is_known:
        raise FunctionError("User not logged in", "401", "NOT_LOGGED_IN")


def require_reader_of(identity: Identity, global_user_id: str) -> None:
    """The fan themselves, or a service that may read any.

    Raises:
        FunctionError: 401 for nobody, 403 for somebody else, 400 for an id that cannot be one.
    """
    require_known(identity)
    if not global_user_id.strip() or len(global_user_id) > _MAX_ID_CHARACTERS:
        raise FunctionError("globalUserId is blank or too long", "400", "BAD_INPUT")
    if not identity.may_read(global_user_id):
        raise FunctionError("a fan's data is shown to that fan only", "403", "FORBIDDEN")
