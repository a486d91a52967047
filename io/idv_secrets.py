"""The secrets that sign IDV results: read from the environment where they are used, never part of settings."""

import os
from typing import Final

from .errors import UsageError

VARIABLE: Final = "FAN_IDENTITY_IDV_SECRETS"
"""Secrets with commas between: results signed with any of them are taken, so that one can be changed at leisure."""


def idv_secrets() -> tuple[str, ...]:
    """The secrets; none where the variable is not set: then results are taken unsigned.

    Raises:
        UsageError: it is set and holds none, which would take whatever comes.
    """
    text = os.environ.get(VARIABLE)
    if text is None:
        return ()
    secrets = tuple(secret.strip() for secret in text.split(",") if secret.strip())
    if not secrets:
        raise UsageError(f"{VARIABLE} holds no secret: name one or more with commas between, or unset it")
    return secrets
