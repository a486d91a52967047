"""Workers with a Lambda handler of their own, by name: those that answer AppSync, and the schedule's. Imports none."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

HANDLERS: Final = {
    "getArmScore": "arm_handler",
    "validateToken": "authorizer",
    "resolveField": "appsync",
    "checkLiveness": "liveness_handler",
}
"""Modules of this package; each has ``handler(event, context)``. Adding a worker is adding a line here."""


def handler_named(name: str) -> Callable[[Any, Any], Any] | None:
    """The handler of a worker, or None where the name is none of these."""
    module = HANDLERS.get(name)
    return None if module is None else import_module(f".{module}", __package__).handler
