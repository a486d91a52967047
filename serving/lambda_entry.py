"""The Lambda entry of every worker: ``fan_identity.serving.lambda_entry.handler``, its worker named by APP_NAME.

Imports what that worker needs: those that answer AppSync start in a third of the time of those that read streams.
"""

import os
from typing import Any

from .resolver_handlers import handler_named


def handler(event: Any, context: Any = None) -> Any:
    """Answers an event with the worker that the environment variable APP_NAME names.

    Raises:
        UsageError: APP_NAME or another setting does not fit, or the event cannot be read.
        BackendUnavailableError: a backend is out of reach: Lambda invokes again.
        FunctionError: a field failed; AppSync shows its message.
    """
    chosen = handler_named(os.environ.get("APP_NAME", ""))
    if chosen is not None:
        return chosen(event, context)
    from .lambda_handler import handler as stream_handler  # noqa: PLC0415 - with everything that streams need

    return stream_handler(event, context)
