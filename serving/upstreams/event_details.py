"""The event service: what an event is called, where and when it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .upstream import Text, UnsafeIdError, Upstream, path_of


class _Answer(msgspec.Struct, rename="camel"):
    name: Text | None = None
    venue: Text | None = None
    starts_at: Text | None = None
    on_sale_at: Text | None = None


@dataclass(frozen=True)
class EventDetailsClient:
    """Reads ``GET <address>/events/<eventId>``; implements ``data_sources.Lookup``."""

    upstream: Upstream

    async def fetch(self, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The event of ``eventId``, or None for an unknown one.

        Raises:
            UnavailableError: there is no answer that can be used.
        """
        asked = parameters["eventId"]
        try:
            path = path_of("events", asked)
        except UnsafeIdError:
            return None
        answer = await self.upstream.get(path, _Answer)
        return None if answer is None else {"eventId": asked, **msgspec.to_builtins(answer)}
