"""AppSync's Lambda authorizer, the worker ``validateToken``: ``fan_identity.serving.authorizer.handler``.

Imports little, so that a new Lambda answers soon: neither boto3 nor pydantic, HTTP client nor GraphQL.

Source: AppSync developer guide, "AWS_LAMBDA authorization".
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypedDict

import msgspec

from ..domain.access import NOBODY, CallerKind, Identity
from ..io import emf
from ..io.logs import configure_logging
from .invocations import invocation_id
from .tokens.bearer import bearer_token
from .tokens.problems import TokenError, TokenProblem
from .tokens.rules import TokenRules
from .tokens.verifier import TokenVerifier

WORKER: Final = "validateToken"
"""The worker's name in the reference, which ``APP_NAME`` selects."""

MAX_TTL_SECONDS: Final = 300
"""How long AppSync may remember an answer at most: as long as the standalone server remembers a token."""

_NOTHING_SHOWN: Final = "NO_TOKEN"
_log = logging.getLogger("fan_identity.authorizer")


class Decision(TypedDict):
    """What AppSync is answered; the first two are the reference's.

    Attributes:
        isAuthorized: whether the request goes on.
        resolverContext: for the resolvers, as ``ctx.identity.resolverContext``: flat text.
        deniedFields: fields that answer null; none, since each function checks who asks.
        ttlOverride: seconds for which AppSync may remember the answer for this token.
    """

    isAuthorized: bool
    resolverContext: dict[str, str]
    deniedFields: list[str]
    ttlOverride: int


class Authorizer:
    """Answers authorizer events.

    Args:
        verifier: verifies tokens.
        clock: seconds since 1970.
    """

    def __init__(self, verifier: TokenVerifier, clock: Callable[[], float] = time.time) -> None:
        self._verifier = verifier
        self._clock = clock

    def decide(self, event: Mapping[str, Any]) -> Decision:
        """Whether a request goes on.

        Args:
            event: ``{authorizationToken, requestContext, requestHeaders}``; only the token is looked at.

        Raises:
            UnavailableError: the issuer's keys cannot be had: AppSync refuses the request and remembers nothing.
        """
        header = event.get("authorizationToken")
        token = bearer_token(header) if isinstance(header, str) else None
        if token is None:
            return _refused(_NOTHING_SHOWN)
        try:
            identity = self._verifier.verify_blocking(token)
        except TokenError as error:
            return _refused(error.code)
        remaining = int(identity.claims["exp"] - self._clock())
        return Decision(
            isAuthorized=True,
            resolverContext=resolver_context_of(identity),
            deniedFields=[],
            ttlOverride=max(0, min(MAX_TTL_SECONDS, remaining)),
        )


def handler(event: Mapping[str, Any], context: Any = None) -> Decision:
    """Answers one authorizer event with the settings of the environment.

    Args:
        event: of AppSync.
        context: of Lambda.

    Raises:
        UsageError: a setting ``FAN_IDENTITY_TOKEN_…`` is missing or does not fit.
        UnavailableError: the issuer's keys cannot be had. A Lambda that fails authorises nobody.
    """
    request_id = invocation_id(context)
    configure_logging(os.environ.get("FAN_IDENTITY_LOG_LEVEL", "WARNING"), WORKER, request_id)
    with emf.invocation(WORKER, request_id) as counts:
        decision = _authorizer().decide(event)
        counts["authorized" if decision["isAuthorized"] else "denied"] += 1
        return decision


@cache
def _authorizer() -> Authorizer:
    return Authorizer(TokenVerifier(TokenRules.from_environment(os.environ)))


def _refused(problem: TokenProblem | str) -> Decision:
    _log.info("refused", extra={"problem": str(problem)})
    # Not remembered: a token that is not valid yet, or whose key is new, may do the next time.
    return Decision(isAuthorized=False, resolverContext={}, deniedFields=[], ttlOverride=0)


def resolver_context_of(identity: Identity) -> dict[str, str]:
    """A caller as flat text, the only thing AppSync hands on to resolvers.

    Without ``claims``: no function asks for them, and AppSync's own log would show names and addresses in them.
    Without ``source_ip``: a resolver's event has it.
    """
    context = {
        "kind": identity.kind.value,
        "subject": identity.subject,
        "scopes": " ".join(sorted(identity.scopes)),
    }
    return context if identity.member_id is None else context | {"memberId": identity.member_id}


def identity_of_resolver_context(context: Mapping[str, Any], source_ip: tuple[str, ...] = ()) -> Identity:
    """The caller that ``resolver_context_of`` wrote down.

    Args:
        context: ``identity.resolverContext`` of a resolver's event. AppSync fills it from our answer alone.
        source_ip: addresses the request came from.

    Returns:
        The caller, without ``claims``; ``NOBODY`` where the context is none of ours.
    """
    try:
        read = msgspec.convert(context, _ResolverContext)
    except msgspec.ValidationError:
        return NOBODY
    if read.kind not in (CallerKind.USER, CallerKind.SERVICE) or not read.subject:
        return NOBODY
    scopes = frozenset(read.scopes.split(" ")) - {""}
    return Identity(read.kind, read.subject, read.member_id, scopes, source_ip=source_ip)


class _ResolverContext(msgspec.Struct, frozen=True, rename={"member_id": "memberId"}):
    kind: CallerKind
    subject: str
    scopes: str = ""
    member_id: str | None = None
