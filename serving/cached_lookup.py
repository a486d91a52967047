"""A lookup whose answers are kept for a while: one question at a time for each, whoever asks.

For answers that are the same for everybody, such as an event's details. What differs by caller never goes in here.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cachetools import TTLCache

from ..io.telemetry.metrics import observe_lookup
from .data_sources import Lookup

EVENT_DETAILS_SECONDS: Final = 300.0
"""How long the reference keeps an event's details."""

_MOST: Final = 10_000
_Key = tuple[tuple[str, str], ...]


class CachedLookup:
    """Keeps a lookup's answers, unknown objects (None) included; errors are not kept.

    Callers that ask while a question is under way share its answer. A caller that goes away does not end it for the
    others.

    Args:
        lookup: who is asked.
        seconds: how long an answer is kept.
        clock: seconds, monotonic.
    """

    def __init__(
        self, lookup: Lookup, seconds: float = EVENT_DETAILS_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lookup = lookup
        self._kept: TTLCache[_Key, Mapping[str, Any] | None] = TTLCache(_MOST, seconds, clock)
        self._asking: dict[_Key, asyncio.Task[Mapping[str, Any] | None]] = {}

    async def fetch(self, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The object, kept or fetched.

        Raises:
            UnavailableError: it is not kept and the upstream is away.
        """
        key = tuple(sorted(parameters.items()))
        kept = key in self._kept
        observe_lookup("event_details", "hit" if kept else "miss")
        if kept:
            return self._kept[key]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, dict(parameters)))
        return await asyncio.shield(task)

    async def _ask(self, key: _Key, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        try:
            answer = self._kept[key] = await self._lookup.fetch(parameters)
            return answer
        finally:
            del self._asking[key]
