"""The campaign service."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .upstream import Text, UnsafeIdError, Upstream, path_of


class _Answer(msgspec.Struct, rename="camel"):
    name: Text | None = None
    status: Text | None = None
    starts_at: Text | None = None
    ends_at: Text | None = None


@dataclass(frozen=True)
class CampaignsClient:
    """Reads ``GET <address>/campaigns/<campaignId>``; implements ``data_sources.Lookup``."""

    upstream: Upstream

    async def fetch(self, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The campaign of ``campaignId``, or None for an unknown one.

        Raises:
            UnavailableError: there is no answer that can be used.
        """
        asked = parameters["campaignId"]
        try:
            path = path_of("campaigns", asked)
        except UnsafeIdError:
            return None
        answer = await self.upstream.get(path, _Answer)
        return None if answer is None else {"campaignId": asked, **msgspec.to_builtins(answer)}
