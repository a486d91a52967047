"""Who asks, by the ``identity`` of an AppSync event: its four forms, and none for an API key.

Source: AppSync developer guide, "Resolver mapping template context reference", Identity.
"""

from collections.abc import Mapping
from typing import Any, Final

from ..domain.access import NOBODY, READ_ANY_SCOPE, CallerKind, Identity, scopes_of
from .authorizer import identity_of_resolver_context

KEY_NAME: Final = "appsync-api-key"
"""The name of AppSync's own API keys here: AppSync checked them and does not say which it was."""


def identity_of_event(
    identity: Mapping[str, Any] | None,
    *,
    user_claim: str = "sub",
    member_claim: str = "memberId",
    audiences: tuple[str, ...] = (),
) -> Identity:
    """The caller. AppSync has authenticated them; what is decided here is who that is.

    * Cognito user pools and OpenID Connect: the user of the claims; a token of a client itself is a service's.
    * IAM: a service that may read any fan, since the API's policies let it in; but an identity of a Cognito identity
      pool is somebody's browser, of which nobody says which fan it is: nobody.
    * Lambda: what our authorizer wrote down.
    * None: an API key. It may ask what anyone may, and reads no fan.

    Args:
        identity: ``event.identity``.
        user_claim: the claim that holds a fan's globalUserId.
        member_claim: the claim that holds a fan's memberId.
        audiences: whose scopes count, as ``<audience>/name``; else a scope counts as it stands.

    Returns:
        The caller; ``NOBODY`` for a form that is none of these.
    """
    if identity is None:
        return Identity(CallerKind.API_KEY, KEY_NAME)
    source_ip = _addresses(identity.get("sourceIp"))
    context = identity.get("resolverContext")
    if isinstance(context, Mapping):
        return identity_of_resolver_context(context, source_ip)  # pyright: ignore[reportUnknownArgumentType]
    claims = identity.get("claims")
    if isinstance(claims, Mapping):
        return _of_claims(claims, user_claim, member_claim, audiences, source_ip)  # pyright: ignore[reportUnknownArgumentType]
    arn = identity.get("userArn")
    if isinstance(arn, str) and arn.startswith("arn:") and not identity.get("cognitoIdentityId"):
        return Identity(CallerKind.SERVICE, arn, scopes=frozenset({READ_ANY_SCOPE}), source_ip=source_ip)
    return NOBODY


def _of_claims(
    claims: Mapping[str, Any],
    user_claim: str,
    member_claim: str,
    audiences: tuple[str, ...],
    source_ip: tuple[str, ...],
) -> Identity:
    client = claims.get("client_id")
    if isinstance(client, str) and client and claims.get("sub") == client:
        scope = claims.get("scope")
        scopes = scopes_of(scope, audiences) if isinstance(scope, str) else frozenset[str]()
        return Identity(CallerKind.SERVICE, client, scopes=scopes, claims=claims, source_ip=source_ip)
    user, member = claims.get(user_claim), claims.get(member_claim)
    if not isinstance(user, str) or not user.strip():
        return NOBODY
    member_id = member if isinstance(member, str) and member.strip() else None
    return Identity(CallerKind.USER, user, member_id, claims=claims, source_ip=source_ip)


def _addresses(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()  # pyright: ignore[reportUnknownVariableType]
