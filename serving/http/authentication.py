"""Who asks over HTTP: a bearer token, or an API key with its rate limit."""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from ...domain.access import NOBODY, Identity
from ...io.errors import UnavailableError
from ..api_keys import ApiKeys
from ..context import FunctionError, unavailable
from ..rate_limits import KeyLimits
from ..tokens.bearer import bearer_token
from ..tokens.problems import TokenError
from .answers import Header, Scope

API_KEY_HEADER: Final = b"x-api-key"


class Tokens(Protocol):
    """Verifies tokens (``serving.tokens``)."""

    def cached(self, token: str) -> Identity | None:
        """The caller of a token that was verified before and is still good, or None."""
        ...

    async def verify(self, token: str, source_ip: tuple[str, ...] = ()) -> Identity:
        """The caller of a token. Raises TokenError, or UnavailableError where the issuer's keys cannot be had."""
        ...


class Authentication:
    """Finds out who asks.

    Args:
        tokens: None where no tokens are taken.
        keys: None where no API keys are taken.
        limits: the API keys' rate limits.
    """

    def __init__(self, tokens: Tokens | None, keys: ApiKeys | None = None, limits: KeyLimits | None = None) -> None:
        self._tokens = tokens
        self._keys = keys
        self._limits = limits

    def known(self, headers: Sequence[Header]) -> Identity | None:
        """The caller of a bearer token that was verified a short while ago; None where ``identify`` has to be asked."""
        authorization: bytes | None = None
        for name, value in headers:
            if name in (b"authorization", API_KEY_HEADER):
                if authorization is not None or name == API_KEY_HEADER:
                    return None
                authorization = value
        if authorization is None or self._tokens is None:
            return None
        token = bearer_token(authorization.decode("latin-1"))
        return None if token is None else self._tokens.cached(token)

    async def identify(self, scope: Scope) -> Identity:
        """The caller; ``NOBODY`` where a request brings no credentials.

        Raises:
            FunctionError: 401, the credentials are not good; 400, they are given twice; 503, they cannot be checked.
        """
        shown = [(name, value) for name, value in scope["headers"] if name in (b"authorization", API_KEY_HEADER)]
        if not shown:
            return NOBODY
        if len(shown) > 1:
            raise FunctionError("one Authorization or X-Api-Key header, not several", "400", "BAD_REQUEST")
        name, value = shown[0]
        return self._of_key(value, scope) if name == API_KEY_HEADER else await self._of_token(value, scope)

    async def admit(self, identity: Identity, cost: int) -> None:
        """Takes a request's cost out of the rate limit of an API key; others have none.

        Raises:
            RateLimitedError: 429, it is used up.
        """
        if self._limits is not None:
            await self._limits.admit(identity, cost)

    async def _of_token(self, authorization: bytes, scope: Scope) -> Identity:
        token = bearer_token(authorization.decode("latin-1"))
        if token is None or self._tokens is None:
            raise _not_good()
        identity = self._tokens.cached(token)
        if identity is not None:
            return identity
        try:
            return await self._tokens.verify(token, source_ip(scope))
        except TokenError:
            raise _not_good() from None
        except UnavailableError as error:
            raise unavailable(error) from None

    def _of_key(self, api_key: bytes, scope: Scope) -> Identity:
        found = None if self._keys is None else self._keys.find(api_key.decode("latin-1"))
        if found is None:
            raise _not_good()
        return msgspec.structs.replace(found.identity, source_ip=source_ip(scope))


def source_ip(scope: Scope) -> tuple[str, ...]:
    """The address the connection came from; what a request says of itself is not taken for one."""
    client = scope.get("client")
    return (str(client[0]),) if client else ()


def _not_good() -> FunctionError:
    return FunctionError("the token or API key is not valid", "401", "UNAUTHORIZED")
