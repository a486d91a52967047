"""The phone scoring service: how trustworthy a phone number is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from .upstream import Text, Upstream


class _Answer(msgspec.Struct, rename="camel"):
    score: Annotated[float, msgspec.Meta(ge=0, le=100)]
    risk_level: Text | None = None


@dataclass(frozen=True)
class PhoneScoresClient:
    """Asks ``POST <address>/phone-scores``; implements ``data_sources.Lookup``.

    The number travels in the body alone: paths end up in logs.
    """

    upstream: Upstream

    async def fetch(self, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The score of ``phoneNumber``, asked for ``globalUserId``; None for an unknown number.

        Raises:
            UnavailableError: there is no answer that can be used.
        """
        asked = {name: parameters[name] for name in ("globalUserId", "phoneNumber")}
        answer = await self.upstream.post("/phone-scores", asked, _Answer)
        return None if answer is None else msgspec.to_builtins(answer)
