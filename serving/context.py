"""What a request carries through the API's functions: the reference's ``ctx``, and how a function ends early.

The names are AppSync's (resolver context object reference), so that a resolver author finds their way.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..domain.access import Identity
from ..domain.fanscore import DEFAULT_BOOSTS, Boosts
from ..io.errors import UnavailableError
from .data_sources import DataSources


class FunctionError(Exception):
    """``util.error(message, errorType, errorInfo)`` of the reference: stops the pipeline, and the caller sees it.

    Args:
        message: one line for people, without personal data.
        error_type: HTTP's status that fits best, as text: ``401``.
        code: for programs: ``NOT_LOGGED_IN``.
    """

    def __init__(self, message: str, error_type: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.error_type = error_type
        self.code = code

    def shown(self) -> dict[str, Any]:
        """As it stands in ``errors`` of an answer."""
        return {"message": self.message, "errorType": self.error_type, "errorInfo": {"code": self.code}}

    def in_batch(self) -> dict[str, Any]:
        """As AppSync takes it for one event of a BatchInvoke."""
        return {"data": None, "errorMessage": self.message, "errorType": self.error_type}


def unavailable(error: UnavailableError) -> FunctionError:
    """What a caller sees of a data source that is away: its name, never what it answered."""
    return FunctionError(f"{error.source} is not available at the moment; try again", "503", "UNAVAILABLE")


def not_configured(what: str, setting: str) -> FunctionError:
    """What a caller sees of a data source that has no address here."""
    return FunctionError(f"{what} is not set up here (setting {setting})", "501", "NOT_CONFIGURED")


class EarlyReturn(Exception):
    """``runtime.earlyReturn``: the rest of the function is skipped; raised by ``Context.early_return``."""

    def __init__(self, value: Any, *, to_end: bool) -> None:
        super().__init__()
        self.value = value
        self.to_end = to_end


@dataclass
class Asked:
    """One question to a data source, for the answer's extensions and the fan's page.

    Attributes:
        function: who asked.
        source: who was asked.
        milliseconds: how long it took.
        outcome: ``ok``, ``skipped``, ``unavailable`` or ``error``.
    """

    function: str
    source: str
    milliseconds: float
    outcome: str


@dataclass(frozen=True)
class Request:
    """What is the same for all of a request's fields.

    Attributes:
        sources: the data sources.
        identity: who asks.
        correlation_id: names the request in logs, and makes repeated mutations one.
        boosts: points of the account fan score.
        asked: filled while functions run.
        degraded: data sources that were away and whose part of an answer is missing, filled likewise.
    """

    sources: DataSources
    identity: Identity
    correlation_id: str = ""
    boosts: Boosts = DEFAULT_BOOSTS
    asked: list[Asked] = field(default_factory=list[Asked])
    degraded: set[str] = field(default_factory=set[str])


@dataclass
class Context:
    """The reference's ``ctx``, as one function sees it.

    Attributes:
        args: the field's arguments.
        request: what the request's fields share.
        stash: what the pipeline's functions share; a function sees the keys it declares.
        prev: the previous function's result.
        result: what the data source answered.
        error: why it did not, for the function to raise or to go on without.
    """

    args: Mapping[str, Any]
    request: Request
    stash: MutableMapping[str, Any]
    prev: Any = None
    result: Any = None
    error: UnavailableError | None = None

    @property
    def identity(self) -> Identity:
        """Who asks."""
        return self.request.identity

    @property
    def sources(self) -> DataSources:
        """The data sources."""
        return self.request.sources

    def early_return(self, value: Any = None, *, to_end: bool = False) -> NoReturn:
        """Ends the function here: neither data source nor ``response`` follow.

        Args:
            value: the function's result.
            to_end: end the pipeline too, with this result; else the next function follows.
        """
        raise EarlyReturn(value, to_end=to_end)

    def degrade(self, key: str | None = None) -> None:
        """Goes on without the data source that is away; the answer names it.

        Args:
            key: the stash key under which a later function finds the error, to raise where it cannot do without.
        """
        if self.error is not None:
            self.request.degraded.add(self.error.source)
            if key is not None:
                self.stash[key] = self.error

    def raise_error(self) -> None:
        """Stops the pipeline where the data source is away.

        Raises:
            FunctionError: naming it.
        """
        if self.error is not None:
            raise unavailable(self.error)
