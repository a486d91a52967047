"""The Live Nation Artists & Attractions API."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .upstream import Text, UnsafeIdError, Upstream, path_of


class _Answer(msgspec.Struct, rename="camel"):
    name: Text | None = None
    genre: Text | None = None


@dataclass(frozen=True)
class LnaaClient:
    """Reads ``GET <address>/artists/<artistId>``; implements ``data_sources.Lookup``."""

    upstream: Upstream

    async def fetch(self, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The artist of ``artistId``, or None for an unknown one.

        Raises:
            UnavailableError: there is no answer that can be used.
        """
        asked = parameters["artistId"]
        try:
            path = path_of("artists", asked)
        except UnsafeIdError:
            return None
        answer = await self.upstream.get(path, _Answer)
        return None if answer is None else {"artistId": asked, **msgspec.to_builtins(answer)}
