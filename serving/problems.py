"""What a caller sees of an exception: our own errors as they are, anything else as an error that the log explains."""

import logging
from typing import Final

from ..io.dynamodb.values import UnsupportedItemError
from ..io.errors import UnavailableError
from .context import FunctionError, unavailable

_log: Final = logging.getLogger(__name__)


def seen_error(cause: BaseException, correlation_id: str) -> FunctionError:
    """The error for the caller; what nobody expected is logged with its stack, without its text.

    An exception's text may hold what came from outside: an id, an answer. Its kind and the lines it passed do not.

    Args:
        cause: what was raised.
        correlation_id: of the request, for the log.
    """
    if isinstance(cause, FunctionError):
        return cause
    if isinstance(cause, UnavailableError):
        return unavailable(cause)
    if isinstance(cause, UnsupportedItemError):
        return FunctionError("what was sent is too large or has characters that cannot be stored", "400", "BAD_INPUT")
    told = RuntimeError(f"{type(cause).__name__}, its text left out")
    _log.error(
        "a field failed",
        exc_info=(RuntimeError, told, cause.__traceback__),
        extra={"error": type(cause).__name__, "correlation": correlation_id},
    )
    return FunctionError("an error of ours; it is in the log", "500", "INTERNAL")
