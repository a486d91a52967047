"""Identity checks over HTTP, as the sandbox has them."""

from dataclasses import dataclass
from typing import Annotated

import msgspec

from ...io.errors import UnavailableError
from ..data_sources import LivenessSession
from .upstream import Upstream

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class _Answer(msgspec.Struct, rename="camel"):
    session_id: _Name
    status: _Name


@dataclass(frozen=True)
class HttpIdentityChecks:
    """Asks ``POST <address>/liveness-sessions``; implements ``data_sources.IdentityChecks``."""

    upstream: Upstream

    async def start(self, global_user_id: str, request_token: str) -> LivenessSession:
        """Starts a session; the same ``request_token``, sent as ``Idempotency-Key``, never starts a second one.

        Raises:
            UnavailableError: there is no answer that can be used.
        """
        asked = {"globalUserId": global_user_id, "requestToken": request_token}
        answer = await self.upstream.post("/liveness-sessions", asked, _Answer, key=request_token)
        if answer is None:
            raise UnavailableError(self.upstream.source, "there is no such path at the address")
        return LivenessSession(answer.session_id, answer.status)

    async def close(self) -> None:
        """Nothing to do."""
