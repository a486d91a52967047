"""The registration service: whether a fan may register for an event."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .upstream import Text, UnsafeIdError, Upstream, path_of


class _Answer(msgspec.Struct, rename="camel"):
    eligible: bool
    reason: Text | None = None


@dataclass(frozen=True)
class EligibilityClient:
    """Reads ``GET <address>/events/<eventId>/fans/<globalUserId>``; implements ``data_sources.Lookup``."""

    upstream: Upstream

    async def fetch(self, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """Whether ``globalUserId`` is eligible for ``eventId``; None for an unknown event.

        Raises:
            UnavailableError: there is no answer that can be used.
        """
        try:
            path = path_of("events", parameters["eventId"], "fans", parameters["globalUserId"])
        except UnsafeIdError:
            return None
        answer = await self.upstream.get(path, _Answer)
        return None if answer is None else msgspec.to_builtins(answer)
