"""What a verified token's claims say of its caller. Pure; ids keep their exact text."""

from collections.abc import Mapping
from typing import Any, Final

from ...domain.access import OPERATOR_SCOPES, CallerKind, Identity, scopes_of
from .problems import TokenError, TokenProblem
from .rules import TokenRules

MAX_ID_BYTES: Final = 1_024
"""Ids beyond this are refused."""

_TIMES: Final = ("exp", "nbf", "iat")


def identity_of(claims: Mapping[str, Any], rules: TokenRules) -> Identity:
    """The caller that claims describe.

    A token whose ``sub`` is its own ``client_id`` is a service's (RFC 9068, 2.2: nobody signed in), unless a claim of
    its own names a user; every other one is a user's.

    Args:
        claims: of a token whose signature, issuer and times were checked.
        rules: what it must be like.

    Raises:
        TokenError: the audience is wrong, or a claim is not what it should be.
    """
    _check_times(claims)
    _check_use(claims)
    _check_audience(claims, rules.audiences)
    client = claims.get("client_id")
    names_user = rules.user_claim != "sub" and claims.get(rules.user_claim) is not None
    if isinstance(client, str) and claims.get("sub") == client and not names_user:
        subject = _id(client, TokenProblem.INVALID_SUBJECT)
        return Identity(CallerKind.SERVICE, subject, scopes=_scopes(claims, rules.audiences), claims=claims)
    subject = _id(claims.get(rules.user_claim), TokenProblem.INVALID_SUBJECT)
    member = claims.get(rules.member_claim)
    member_id = None if member is None else _id(member, TokenProblem.INVALID_MEMBER)
    return Identity(CallerKind.USER, subject, member_id, _scopes_of_user(claims, rules.audiences), claims)


def _check_times(claims: Mapping[str, Any]) -> None:
    """RFC 7519, 2: times are numbers. PyJWT, which compares them, takes text and booleans too."""
    for name in _TIMES:
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TokenError(TokenProblem.INVALID_CLAIM)


def _check_use(claims: Mapping[str, Any]) -> None:
    """Cognito says what a token is for: to show who somebody is, or to get access; others are no tokens for an API."""
    if claims.get("token_use") not in (None, "id", "access"):
        raise TokenError(TokenProblem.WRONG_USE)


def _check_audience(claims: Mapping[str, Any], audiences: tuple[str, ...]) -> None:
    named: Any = claims.get("aud")
    if named is None and claims.get("token_use") == "access":
        named = claims.get("client_id")  # Cognito's access tokens have no aud
    for one in named if isinstance(named, list) else [named]:  # pyright: ignore[reportUnknownVariableType]
        if isinstance(one, str) and one in audiences:
            return
    raise TokenError(TokenProblem.WRONG_AUDIENCE)


def _scopes(claims: Mapping[str, Any], audiences: tuple[str, ...]) -> frozenset[str]:
    """``scope`` (RFC 8693, 4.2), separated by spaces; ``<audience>/name``, as Cognito writes it, is ``name``."""
    text = claims.get("scope", "")
    if not isinstance(text, str):
        raise TokenError(TokenProblem.INVALID_CLAIM)
    return scopes_of(text, audiences)


def _scopes_of_user(claims: Mapping[str, Any], audiences: tuple[str, ...]) -> frozenset[str]:
    """Of a person's scopes those that make an operator; no other one opens anything, so none is an error."""
    text = claims.get("scope", "")
    return scopes_of(text, audiences) & OPERATOR_SCOPES if isinstance(text, str) else frozenset()


def _id(value: object, problem: TokenProblem) -> str:
    """An id as it stands: text that is not blank, can be written as UTF-8 and is not too long."""
    if not isinstance(value, str) or not value.strip():
        raise TokenError(problem)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise TokenError(problem) from None
    if size > MAX_ID_BYTES:
        raise TokenError(problem)
    return value
