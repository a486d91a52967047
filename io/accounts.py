"""The Accounts service: what it knows of a user's activity (ARAI)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import quote

from ..domain.records import Failure
from .caller import RefusedError
from .http_json import JsonApi

UNKNOWN_USER: Final[Mapping[str, Any]] = {}
"""The response for a user Accounts does not know."""

_NOT_FOUND: Final = 404
_MAX_PATH_SEGMENT: Final = 6_000  # servers take request lines of 8 kB; no account's id is that long


@dataclass(frozen=True)
class AccountsClient:
    """Reads ``GET <address>/users/<id>/activity``. Pickles; holds no connection."""

    api: JsonApi

    @classmethod
    def of(cls, text: str, setting: str) -> "AccountsClient":
        """The service of an address ``https://accounts/api``; options are those of ``HTTP_OPTIONS``.

        A bearer token comes from ``FAN_IDENTITY_ACCOUNTS_TOKEN``.

        Raises:
            UsageError: naming what is wrong with the address.
        """
        return cls(JsonApi.of(text, setting, "accounts"))

    def fetch_many(self, user_ids: Sequence[str], correlation_id: str = "") -> list[Mapping[str, Any] | Failure]:
        """Asks for each user, in order.

        Args:
            user_ids: any text; ids that no path can carry safely (``.``, ``..``, over 6 kB) count as unknown users.
            correlation_id: of the batch, for the service's log.

        Returns:
            For each the response, a JSON object, ``{}`` for an unknown user; or a Failure: ``accounts_unavailable``
            (retryable), ``accounts_refused`` or ``accounts_invalid``.
        """

        async def fetch(user_id: str) -> Mapping[str, Any]:
            segment = path_segment(user_id)
            if segment is None:
                return UNKNOWN_USER
            try:
                answer = await self.api.get(f"/users/{segment}/activity", correlation_id)
            except RefusedError as error:
                if error.status == _NOT_FOUND:
                    return UNKNOWN_USER
                raise
            if not isinstance(answer, dict):
                raise self.api.invalid("the answer is not a JSON object")
            return cast("dict[str, Any]", answer)

        return self.api.caller.map(user_ids, fetch)


def path_segment(text: str) -> str | None:
    """Percent-encodes a text so that it is one segment of a path, whatever it contains; None where that is unsafe.

    Everything but letters, digits, ``-`` and ``_`` is encoded, the dot too. Servers that decode before they resolve
    dots would still climb with ``%2E%2E``, so ``.`` and ``..`` are no segments.

    >>> path_segment("a/../b?c")
    'a%2F%2E%2E%2Fb%3Fc'
    """
    if text in ("", ".", "..") or len(text) > _MAX_PATH_SEGMENT:
        return None
    try:
        quoted = quote(text, safe="").replace(".", "%2E").replace("~", "%7E")
    except UnicodeEncodeError:  # a lone surrogate, which is no text
        return None
    return quoted if len(quoted) <= _MAX_PATH_SEGMENT else None
