"""Spans of what is asked of the outside, on the methods that ask: one a call, however many requests it takes.

A method's span is named ``<operation> <table or queue>``. It says how many items the call is about, never which.
"""

from collections.abc import Callable, Sized
from functools import wraps
from types import CoroutineType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from .tracing import Attributes, Value, in_recorded_span, service_span

_DATABASE: Final = ("db.operation.name", "db.operation.batch.size")
_MESSAGING: Final = ("messaging.operation.name", "messaging.batch.message_count")
_PLACES: Final = ("db.collection.name", "messaging.destination.name", "db.system.name", "messaging.system")
_TYPES: Final = {"send": "send", "delete": "settle", "commit": "settle"}


class Place(Protocol):
    """Who is asked."""

    @property
    def place(self) -> Attributes:
        """Attributes of semantic conventions: ``db.system.name`` and ``db.collection.name``, or those of messaging."""
        ...


Owner = TypeVar("Owner", bound=Place)
P = ParamSpec("P")
R = TypeVar("R")
# The second stays text where it is used, too: Python 3.11 cannot fill in what stands in its quotes.
Method = Callable[Concatenate[Owner, P], R]
AsyncMethod = Callable[Concatenate[Owner, P], "CoroutineType[Any, Any, R]"]


class Decorator(Protocol):
    """Gives a method a span."""

    def __call__(self, method: Method[Owner, P, R], /) -> Method[Owner, P, R]:
        """The method, of the same type."""
        ...


class AsyncDecorator(Protocol):
    """Gives a method on an event loop a span."""

    def __call__(self, method: "AsyncMethod[Owner, P, R]", /) -> "AsyncMethod[Owner, P, R]":
        """The method, of the same type."""
        ...


def database_call(operation: str) -> Decorator:
    """A method that asks a database.

    Args:
        operation: as the database names it: ``BatchWriteItem``.
    """
    return _spanned(operation, _DATABASE)


def queue_call(operation: str) -> Decorator:
    """A method that asks a queue or a log: ``send``, ``delete`` or ``commit``."""
    return _spanned(operation, _MESSAGING)


def async_database_call(operation: str) -> AsyncDecorator:
    """``database_call`` for code on an event loop."""

    def decorate(method: "AsyncMethod[Owner, P, R]") -> "AsyncMethod[Owner, P, R]":
        async def traced(self: Owner, *args: P.args, **named: P.kwargs) -> R:
            with service_span(*_described(self.place, operation, _DATABASE, args)):
                return await method(self, *args, **named)

        @wraps(method)
        def call(self: Owner, *args: P.args, **named: P.kwargs) -> "CoroutineType[Any, Any, R]":
            return traced(self, *args, **named) if in_recorded_span() else method(self, *args, **named)

        return call

    return decorate


def _spanned(operation: str, names: tuple[str, str]) -> Decorator:
    def decorate(method: Method[Owner, P, R]) -> Method[Owner, P, R]:
        @wraps(method)
        def call(self: Owner, *args: P.args, **named: P.kwargs) -> R:
            if not in_recorded_span():
                return method(self, *args, **named)
            with service_span(*_described(self.place, operation, names, args)):
                return method(self, *args, **named)

        return call

    return decorate


def _described(
    place: Attributes, operation: str, names: tuple[str, str], args: tuple[Any, ...]
) -> tuple[str, dict[str, Value]]:
    """A span's name and attributes."""
    attributes: dict[str, Value] = {**place, names[0]: operation}
    if names is _MESSAGING:
        attributes["messaging.operation.type"] = _TYPES[operation]
    if args and isinstance(args[0], Sized) and not isinstance(args[0], str | bytes):
        attributes[names[1]] = len(args[0])
    return f"{operation} {next(str(place[name]) for name in _PLACES if name in place)}", attributes
