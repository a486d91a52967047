"""What the API needs to know besides the workers' settings: environment variables ``FAN_IDENTITY_…``, then flags."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from ..domain.fanscore import DEFAULT_BOOSTS, Boosts
from ..io.durations import duration
from ..io.settings import Settings, load
from .tokens.rules import (
    DEFAULT_ALGORITHMS,
    DEFAULT_MEMBER_CLAIM,
    DEFAULT_USER_CLAIM,
    checked_algorithms,
    split_list,
)


class ServingSettings(Settings):
    """Settings of ``fan-identity serve`` and of the resolvers behind AppSync.

    Addresses of tables are as elsewhere (``dynamodb://``, ``sqlite:///``); ``store`` stands for all of them together.
    Upstreams are ``https://…`` addresses with the options of ``io.http_json.HTTP_OPTIONS``; None where there is none.

    Attributes:
        host: the address listened on.
        port: the port; 0 for a free one.
        development: GraphiQL, introspection and no TLS demands; off in production.
        token_issuer: ``iss`` of tokens; None where no tokens are taken.
        token_audience: ``aud`` of tokens (Cognito: the app client's id); several with commas between.
        token_jwks: where the issuer's keys are: an ``https://…`` URL or a file's path;
            ``<issuer>/.well-known/jwks.json`` where None.
        token_algorithms: signatures taken, of ``tokens.rules.ALGORITHMS``.
        token_user_claim: the claim that holds a fan's globalUserId.
        token_member_claim: the claim that holds a fan's memberId.
        api_keys: a file of hashed API keys, made with ``fan-identity api-keys``; None where none are taken.
        account_fanscore_table: scores by member.
        demand_table: events, and fans' demand for them.
        account_info: the account service; likewise ``campaigns``, ``phone_scores``, ``eligibility``,
            ``event_details`` and ``lnaa``.
        identity_checks: ``rekognition://region`` or an ``https://`` address (the sandbox).
        events: ``eventbridge://bus``, where ``user.upsert`` goes; None to keep events in the outbox.
        outbox: ``sqlite:///file`` where events wait until they are published; the store where None.
        arm_fallback: whether the ARM lookup reads the table while the cache is away.
        arm_deadline: what a lookup waits for the ARM cache at most.
        boosts: points by ARM, event demand and bot-or-not score, as JSON.
        upstream_deadline: what a request waits for an upstream at most, its retries included.
        trust_traceparent: whether a caller's trace is continued, and its choice to record it heeded; else each request
            begins a trace of its own, linked to the caller's. For a server that none but own services reach.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    development: bool = False
    token_issuer: str | None = None
    token_audience: str | None = None
    token_jwks: str | None = None
    token_algorithms: Annotated[tuple[str, ...], NoDecode] = DEFAULT_ALGORITHMS
    token_user_claim: str = DEFAULT_USER_CLAIM
    token_member_claim: str = DEFAULT_MEMBER_CLAIM
    api_keys: str | None = None
    account_fanscore_table: str | None = None
    demand_table: str | None = None
    account_info: str | None = None
    campaigns: str | None = None
    phone_scores: str | None = None
    eligibility: str | None = None
    event_details: str | None = None
    lnaa: str | None = None
    identity_checks: str | None = None
    events: str | None = None
    outbox: str | None = None
    arm_fallback: bool = True
    arm_deadline: timedelta = Field(default=timedelta(milliseconds=100), gt=timedelta(0))
    boosts: Boosts = DEFAULT_BOOSTS
    upstream_deadline: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0))
    trust_traceparent: bool = False

    @property
    def has_console(self) -> bool:
        """Whether there is an operators' console: a store holds all, or operations or dead letters have an address."""
        return any(address is not None for address in (self.store, self.operations, self.dead_letters))

    @field_validator("upstream_deadline", "arm_deadline", mode="before")
    @classmethod
    def _parse_deadline(cls, value: object) -> object:
        return duration(value) if isinstance(value, str) else value

    @field_validator("token_algorithms", mode="before")
    @classmethod
    def _split_algorithms(cls, value: object) -> object:
        return split_list(value) if isinstance(value, str) else value

    @field_validator("token_algorithms")
    @classmethod
    def _known_algorithms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_algorithms(value)


def load_serving_settings(**flags: Any) -> ServingSettings:
    """Reads the environment; a flag that is not None overrides it.

    Raises:
        UsageError: naming each setting that does not fit and what was expected.
    """
    return load(ServingSettings, flags)
