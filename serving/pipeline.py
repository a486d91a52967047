"""Pipelines of functions: those that do not depend on one another run side by side, to the same end.

A function declares the stash keys it reads and writes. It waits for an earlier one where either writes what the other
uses; a function with an effect waits for all before it. So the outcome is the one of running them one after the other:
the first error in their order, the same stash, the same result.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ..io.errors import UnavailableError
from ..io.telemetry import tracing
from .context import Asked, Context, EarlyReturn, Request


@dataclass(frozen=True)
class Function:
    """One step of a pipeline.

    Attributes:
        name: the reference's name.
        source: the data source it asks, by the reference's name; ``none`` for pure computation.
        request: asks the data source; what it returns is ``ctx.result``. May return early.
        response: takes ``ctx.result`` or ``ctx.error``, writes the stash, returns the function's result.
        reads: stash keys it reads.
        writes: stash keys it writes.
        reads_previous: whether it looks at ``ctx.prev``.
        has_effect: whether it changes something outside; then everything before it is done and went well.
    """

    name: str
    source: str
    request: Callable[[Context], Awaitable[Any]]
    response: Callable[[Context], Any]
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    reads_previous: bool = False
    has_effect: bool = False

    def depends_on(self, earlier: "Function") -> bool:
        """Whether it must wait for a function before it."""
        return bool(
            self.has_effect
            or earlier.has_effect
            or earlier.writes & (self.reads | self.writes)
            or earlier.reads & self.writes
        )


class UndeclaredKeyError(Exception):
    """A function used a stash key it did not declare: a defect, which would make the outcome a matter of luck."""


class _Stash(MutableMapping[str, Any]):
    """The stash as one function sees it."""

    __slots__ = ("_all", "_function")

    def __init__(self, everything: dict[str, Any], function: Function) -> None:
        self._all = everything
        self._function = function

    def _declared(self, key: str, keys: frozenset[str]) -> str:
        if key not in keys:
            raise UndeclaredKeyError(f"{self._function.name} does not declare the stash key {key}")
        return key

    def __getitem__(self, key: str) -> Any:
        return self._all[self._declared(key, self._function.reads | self._function.writes)]

    def __setitem__(self, key: str, value: Any) -> None:
        self._all[self._declared(key, self._function.writes)] = value

    def __delitem__(self, key: str) -> None:
        del self._all[self._declared(key, self._function.writes)]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._all if key in self._function.reads | self._function.writes)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass
class _End:
    """How a function ended: with a result, an error, or the whole pipeline's result."""

    result: Any = None
    error: BaseException | None = None
    ends_pipeline: bool = False
    asked: Asked | None = None
    degraded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Pipeline:
    """Functions in their order; the last one's result is the pipeline's.

    Attributes:
        functions: at least one.
    """

    functions: tuple[Function, ...]
    _waits_for: tuple[tuple[int, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        waits = tuple(
            tuple(
                earlier
                for earlier in range(number)
                if function.depends_on(self.functions[earlier]) or (function.reads_previous and earlier == number - 1)
            )
            for number, function in enumerate(self.functions)
        )
        object.__setattr__(self, "_waits_for", waits)

    async def run(self, args: Mapping[str, Any], request: Request, *, side_by_side: bool = True) -> Any:
        """Runs the functions.

        Args:
            args: the field's arguments.
            request: what the request's fields share.
            side_by_side: False runs them one after the other, for comparison.

        Returns:
            The last function's result, or what an early return ended the pipeline with.

        Raises:
            FunctionError: the first function in order that raised one.
        """
        stash: dict[str, Any] = {}
        ends: Sequence[_End | None]
        if side_by_side:
            ends = await self._side_by_side(args, request, stash)
        else:
            ends = await self._one_by_one(args, request, stash)
        return _outcome(ends, request)

    async def _one_by_one(self, args: Mapping[str, Any], request: Request, stash: dict[str, Any]) -> list[_End | None]:
        ends: list[_End | None] = []
        for function in self.functions:
            previous = ends[-1] if ends else None
            end = await _run(function, args, request, stash, previous.result if previous else None)
            ends.append(end)
            if end.error is not None or end.ends_pipeline:
                break
        return ends

    async def _side_by_side(
        self, args: Mapping[str, Any], request: Request, stash: dict[str, Any]
    ) -> list[_End | None]:
        ends: list[_End | None] = [None] * len(self.functions)
        tasks: list[asyncio.Task[None]] = []

        async def run(number: int) -> None:
            waits = self._waits_for[number]
            if waits:
                await asyncio.wait([tasks[earlier] for earlier in waits])
                for earlier in waits:
                    end = ends[earlier]
                    if end is None or end.error is not None or end.ends_pipeline:
                        return
            function = self.functions[number]
            previous = ends[number - 1] if number and function.reads_previous else None
            ends[number] = await _run(function, args, request, stash, previous.result if previous else None)

        try:
            tasks += [asyncio.create_task(run(number)) for number in range(len(self.functions))]
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return ends


async def _run(
    function: Function, args: Mapping[str, Any], request: Request, stash: dict[str, Any], previous: Any
) -> _End:
    """Runs one function, in a span of its own that is linked to the trace in which what it read came about."""
    with tracing.child_span(function.name) as span:
        end = await _end_of(function, args, request, stash, previous)
        if end.asked is not None:
            span.set({"fan_identity.source": function.source, "fan_identity.outcome": end.asked.outcome})
            if end.asked.outcome in ("unavailable", "error"):
                span.fail(end.asked.outcome)
    return end


async def _end_of(
    function: Function, args: Mapping[str, Any], request: Request, stash: dict[str, Any], previous: Any
) -> _End:
    own = Request(request.sources, request.identity, request.correlation_id, request.boosts)
    ctx = Context(args, own, _Stash(stash, function), previous)
    started = time.perf_counter()
    outcome = "ok"
    end = _End()
    try:
        try:
            ctx.result = await function.request(ctx)
            if isinstance(ctx.result, Mapping):
                tracing.link_current(cast("Mapping[str, Any]", ctx.result).get("traceparent"))
        except UnavailableError as error:
            ctx.error = error
            outcome = "unavailable"
        took = time.perf_counter() - started
        end.result = function.response(ctx)
    except EarlyReturn as early:
        took = time.perf_counter() - started
        outcome = "skipped"
        end.result, end.ends_pipeline = early.value, early.to_end
    except Exception as error:
        took = time.perf_counter() - started
        outcome = "unavailable" if ctx.error is not None else "error"
        end.error = error
    end.asked = Asked(function.name, function.source, took * 1_000, outcome)
    end.degraded = frozenset(own.degraded)
    return end


def _outcome(ends: Sequence[_End | None], request: Request) -> Any:
    """The result or error of running one after the other; what came after an end never counts."""
    result: Any = None
    for end in ends:
        if end is None:
            break
        if end.asked is not None:
            request.asked.append(end.asked)
        request.degraded.update(end.degraded)
        if end.error is not None:
            raise end.error
        result = end.result
        if end.ends_pipeline:
            break
    return result
