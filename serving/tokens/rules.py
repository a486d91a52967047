"""What a token must be like, read from the settings.

This is the one place that knows the settings' defaults and meaning: ``ServingSettings`` takes them from here, and the
authorizer's Lambda reads them from the environment without pydantic, which alone would take most of its start-up time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ...io.errors import UsageError

if TYPE_CHECKING:
    from ..settings import ServingSettings

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures a token may have: those with a public key. Never ``none``, never one with a shared secret."""

DEFAULT_ALGORITHMS: Final = ("RS256", "ES256")
DEFAULT_USER_CLAIM: Final = "sub"
DEFAULT_MEMBER_CLAIM: Final = "memberId"
_PREFIX: Final = "FAN_IDENTITY_TOKEN_"


@dataclass(frozen=True)
class TokenRules:
    """What a token must be like.

    Attributes:
        issuer: ``iss``, compared as it stands.
        audiences: of which ``aud`` must hold one (a Cognito access token: ``client_id`` must be one).
        jwks: where the issuer's keys are: an ``https://`` URL or a file's path.
        algorithms: signatures taken.
        user_claim: the claim that holds a fan's globalUserId.
        member_claim: the claim that holds a fan's memberId.
    """

    issuer: str
    audiences: tuple[str, ...]
    jwks: str
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    user_claim: str = DEFAULT_USER_CLAIM
    member_claim: str = DEFAULT_MEMBER_CLAIM

    @classmethod
    def of(cls, settings: "ServingSettings") -> "TokenRules":
        """The rules of the settings ``token_…``.

        Raises:
            UsageError: issuer or audience is missing.
        """
        return cls._made(
            settings.token_issuer,
            settings.token_audience,
            settings.token_jwks,
            settings.token_algorithms,
            settings.token_user_claim,
            settings.token_member_claim,
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "TokenRules":
        """The rules of ``FAN_IDENTITY_TOKEN_…``, the same as by way of ``load_serving_settings``.

        Raises:
            UsageError: a setting is missing or does not fit.
        """
        found = {name.upper(): text for name, text in environment.items()}
        algorithms = found.get(_PREFIX + "ALGORITHMS")
        try:
            checked = DEFAULT_ALGORITHMS if algorithms is None else checked_algorithms(split_list(algorithms))
        except ValueError as error:
            raise UsageError(f"setting token_algorithms: {error} ({_PREFIX}ALGORITHMS)") from None
        return cls._made(
            found.get(_PREFIX + "ISSUER"),
            found.get(_PREFIX + "AUDIENCE"),
            found.get(_PREFIX + "JWKS"),
            checked,
            found.get(_PREFIX + "USER_CLAIM", DEFAULT_USER_CLAIM),
            found.get(_PREFIX + "MEMBER_CLAIM", DEFAULT_MEMBER_CLAIM),
        )

    @classmethod
    def _made(
        cls,
        issuer: str | None,
        audience: str | None,
        jwks: str | None,
        algorithms: tuple[str, ...],
        user_claim: str,
        member_claim: str,
    ) -> "TokenRules":
        if not issuer:
            raise UsageError(f"setting token_issuer: names the issuer of tokens, their iss ({_PREFIX}ISSUER)")
        audiences = split_list(audience or "")
        if not audiences:
            raise UsageError(
                f"setting token_audience: names whom tokens are for; without, any of the issuer's would do "
                f"({_PREFIX}AUDIENCE)"
            )
        if not jwks:
            jwks = issuer.rstrip("/") + "/.well-known/jwks.json"
        return cls(issuer, audiences, jwks, algorithms, user_claim, member_claim)


def split_list(text: str) -> tuple[str, ...]:
    """Reads ``a, b``.

    >>> split_list("RS256, ES256,")
    ('RS256', 'ES256')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def checked_algorithms(algorithms: tuple[str, ...]) -> tuple[str, ...]:
    """The algorithms themselves.

    Raises:
        ValueError: there is none, or one that is not in ``ALGORITHMS``.
    """
    if not algorithms or set(algorithms) - set(ALGORITHMS):
        raise ValueError(f"algorithms are some of {', '.join(ALGORITHMS)}")
    return algorithms
