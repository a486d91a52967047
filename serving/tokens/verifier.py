"""Who a caller is, by their token (a JWT signed by the issuer, RFC 7519, after the advice of RFC 8725)."""

import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import TimeoutError as NoResultYet
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jwt
import msgspec
from jwt.exceptions import InvalidJTIError, InvalidSubjectError

from ...domain.access import Identity
from ...io.errors import UnavailableError
from .claims import identity_of
from .jwks import KeyId
from .key_document import FETCH_SECONDS, KeyDocument
from .key_set import KeySet
from .problems import TokenError, TokenProblem
from .rules import TokenRules
from .strict_json import DuplicateKeyError, read_object

if TYPE_CHECKING:
    from ..settings import ServingSettings

MAX_TOKEN_CHARACTERS: Final = 8_192
"""Longer tokens are refused before anything of them is read."""

LEEWAY_SECONDS: Final = 30
"""By how much the issuer's clock may differ from ours."""

CACHED_SECONDS: Final = 300.0
"""A token is verified again after this time, or when it expires."""

CACHED_TOKENS: Final = 10_000

_WAIT_SECONDS: Final = 2 * FETCH_SECONDS + 1
_TYPES: Final = (None, "jwt", "at+jwt")  # RFC 9068, 4 for access tokens
_PARTS: Final = 3


class _Verified(NamedTuple):
    identity: Identity
    until: float
    generation: int


class TokenVerifier:
    """Verifies tokens; one a process, for one event loop or for code without one.

    Args:
        rules: what a token must be like.
        clock: seconds since 1970.
        cached_tokens: how many verified tokens are remembered.

    Raises:
        UsageError: the rules name no place for keys.
    """

    def __init__(
        self, rules: TokenRules, *, clock: Callable[[], float] = time.time, cached_tokens: int = CACHED_TOKENS
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._keys = KeySet(KeyDocument(rules.jwks), rules.algorithms, clock)
        self._decoder = _Decoder()
        self._cached_tokens = cached_tokens
        # By SHA-256, so that no token stays in memory.
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    @classmethod
    def of(cls, settings: "ServingSettings") -> "TokenVerifier":
        """The verifier of the settings ``token_…``.

        Raises:
            UsageError: one is missing or does not fit.
        """
        return cls(TokenRules.of(settings))

    async def verify(self, token: str, source_ip: tuple[str, ...] = ()) -> Identity:
        """The caller of a token.

        Args:
            token: without ``Bearer``.
            source_ip: addresses the request came from.

        Raises:
            TokenError: it is refused; the code is for the log.
            UnavailableError: ``jwks``: the issuer's keys cannot be had and none are known.
        """
        identity = self.cached(token)
        if identity is None:
            key_id = _key_id(token, self._rules.algorithms)
            flight = self._keys.flight(key_id)
            if flight is not None:
                import asyncio  # noqa: PLC0415 - the authorizer's Lambda starts without it

                # The flight goes on for the others where this caller's request is given up.
                await asyncio.wait({asyncio.wrap_future(flight)}, timeout=_WAIT_SECONDS)
            identity = self._verify(token, key_id)
        return msgspec.structs.replace(identity, source_ip=source_ip) if source_ip else identity

    async def check(self) -> None:
        """Makes sure that there are keys to verify with; for readiness, and so that no first request waits for them.

        Raises:
            UnavailableError: ``jwks``: the issuer's keys cannot be had and none are known.
        """
        flight = self._keys.renewal()
        # Where keys are there nobody waits: an issuer that hangs must not make a server unready that can do its work.
        if flight is not None and self._keys.usable_until <= self._clock():
            import asyncio  # noqa: PLC0415 - as in ``verify``

            await asyncio.wait({asyncio.wrap_future(flight)}, timeout=_WAIT_SECONDS)
        if self._keys.usable_until <= self._clock():
            raise UnavailableError("jwks", "the issuer's keys cannot be had")

    def verify_blocking(self, token: str) -> Identity:
        """``verify`` for code that is on no event loop. Raises the same."""
        identity = self.cached(token)
        if identity is None:
            key_id = _key_id(token, self._rules.algorithms)
            flight = self._keys.flight(key_id)
            if flight is not None:
                with suppress(NoResultYet):  # ``find`` says what can be done without
                    flight.result(_WAIT_SECONDS)
            identity = self._verify(token, key_id)
        return identity

    def cached(self, token: str) -> Identity | None:
        """The caller of a token that was verified a short while ago; None where it was not, or is to be verified anew.

        Takes microseconds and never waits. The identity has no ``source_ip``.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            return None
        digest = _digest(token)
        found = self._verified.get(digest)
        if found is None:
            return None
        if found.until <= self._clock() or found.generation != self._keys.generation:
            self._verified.pop(digest, None)
            return None
        self._verified.move_to_end(digest)
        return found.identity

    def _verify(self, token: str, key_id: KeyId) -> Identity:
        """Verifies a token with its key and remembers it.

        Raises:
            TokenError: it is refused.
            UnavailableError: no keys are known.
        """
        generation = self._keys.generation  # before ``find``: keys withdrawn meanwhile count as withdrawn afterwards
        key = self._keys.find(key_id)
        claims = self._decoder.claims(token, key.key, self._rules.issuer)
        identity = identity_of(claims, self._rules)
        until = min(claims["exp"], self._clock() + CACHED_SECONDS, self._keys.usable_until)
        self._verified[_digest(token)] = _Verified(identity, until, generation)
        if len(self._verified) > self._cached_tokens:
            self._verified.popitem(last=False)
        return identity


class _Decoder(jwt.PyJWT):
    """PyJWT, reading the claims strictly."""

    def claims(self, token: str, key: jwt.PyJWK, issuer: str) -> dict[str, Any]:
        """The claims of a token whose signature, issuer and times are right; the audience is not looked at.

        Raises:
            TokenError: one is not.
        """
        try:
            return self.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss"], "verify_aud": False, "enforce_minimum_key_length": True},
            )
        except DuplicateKeyError:
            raise TokenError(TokenProblem.DUPLICATE_KEY) from None
        except jwt.PyJWTError as error:
            raise TokenError(_problem_of(error)) from None
        except (ValueError, TypeError, RecursionError):
            raise TokenError(TokenProblem.MALFORMED) from None

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        return read_object(decoded["payload"])


_PROBLEMS: Final[tuple[tuple[type[jwt.PyJWTError], TokenProblem], ...]] = (
    (jwt.InvalidSignatureError, TokenProblem.BAD_SIGNATURE),
    (jwt.InvalidAlgorithmError, TokenProblem.WRONG_ALGORITHM),
    (jwt.ExpiredSignatureError, TokenProblem.EXPIRED),
    (jwt.ImmatureSignatureError, TokenProblem.NOT_YET_VALID),
    (jwt.InvalidIssuerError, TokenProblem.WRONG_ISSUER),
    (jwt.MissingRequiredClaimError, TokenProblem.MISSING_CLAIM),
    (jwt.InvalidIssuedAtError, TokenProblem.INVALID_CLAIM),
    (InvalidSubjectError, TokenProblem.INVALID_SUBJECT),
    (InvalidJTIError, TokenProblem.INVALID_CLAIM),
)


def _problem_of(error: jwt.PyJWTError) -> TokenProblem:
    return next((problem for kind, problem in _PROBLEMS if isinstance(error, kind)), TokenProblem.MALFORMED)


def _key_id(token: str, algorithms: tuple[str, ...]) -> KeyId:
    """What a token says of its key. Of its header nothing else is used: not ``jku``, ``jwk``, ``x5u`` nor ``x5c``.

    Raises:
        TokenError: it is too long or no JWT, or its header is refused.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise TokenError(TokenProblem.TOO_LARGE)
    parts = token.split(".")
    if not token.isascii() or len(parts) != _PARTS:
        raise TokenError(TokenProblem.MALFORMED)
    header = _header(parts[0])
    kind, kid, algorithm = header.get("typ"), header.get("kid"), header.get("alg")
    if isinstance(kind, str):
        kind = kind.lower().removeprefix("application/")  # RFC 7515, 4.1.9
    if kind not in _TYPES:
        raise TokenError(TokenProblem.WRONG_TYPE)
    if "crit" in header:
        raise TokenError(TokenProblem.CRITICAL_HEADER)
    if algorithm not in algorithms:
        raise TokenError(TokenProblem.WRONG_ALGORITHM)
    if not (kid is None or isinstance(kid, str)):
        raise TokenError(TokenProblem.MALFORMED)
    return KeyId(kid, algorithm)


def _header(part: str) -> dict[str, Any]:
    try:
        return read_object(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except DuplicateKeyError:
        raise TokenError(TokenProblem.DUPLICATE_KEY) from None
    except (binascii.Error, ValueError):
        raise TokenError(TokenProblem.MALFORMED) from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
