"""From the settings to the parts of the application."""

from collections.abc import Sequence
from pathlib import Path

from starlette.routing import BaseRoute

from ...io.addresses import parse_address
from ...io.errors import UsageError
from ..api_keys import ApiKeys
from ..arm import ArmLookup
from ..data_sources import AsyncTable
from ..fan_table import open_fan_table
from ..rate_limits import KeyLimits, open_rate_limiter
from ..settings import ServingSettings
from ..tokens.verifier import TokenVerifier
from .app import Closer, Parts
from .authentication import Authentication
from .health import Check, Needed


async def open_parts(settings: ServingSettings) -> Parts:
    """The parts of the settings, for the event loop this runs on.

    Raises:
        FanIdentityError: a setting is wrong.
    """
    checks: dict[str, Check] = {}
    closers: list[Closer] = []
    if answers_graphql(settings):
        return _open_api(settings, checks, closers)
    table = _open_table(settings, checks, closers)
    arm = ArmLookup.of(
        settings.cache,
        settings.store,
        deadline_seconds=settings.arm_deadline.total_seconds(),
        table=(lambda: table) if settings.arm_fallback else None,
    )
    checks["cache"] = arm.check
    closers.append(arm.close)
    authentication = _open_authentication(settings, checks, closers)
    routes = _open_console(settings, authentication, closers)
    return Parts(arm, authentication, checks, _needed(settings), routes, closers, settings.trust_traceparent)


def _needed(settings: ServingSettings) -> Needed:
    """The lookup needs the cache, or the table where that stands in for it, and the issuer's keys."""
    lookup = frozenset({"cache", "fan_identity"} if settings.arm_fallback else {"cache"})
    return [lookup, frozenset({"jwks"})] if settings.token_issuer is not None else [lookup]


def answers_graphql(settings: ServingSettings) -> bool:
    """Whether GraphQL is answered: where its tables have an address; a cache and a table are enough for ``/arm``."""
    of_graphql = (
        settings.store,
        settings.account_fanscore_table,
        settings.demand_table,
        settings.verification_table,
        settings.outbox,
    )
    return any(address is not None for address in of_graphql)


def _open_api(settings: ServingSettings, checks: dict[str, Check], closers: list[Closer]) -> Parts:
    """The lookup and GraphQL over the same data sources."""
    from ..graphql.endpoint import graphql_route  # noqa: PLC0415 - with graphql-core, which the lookup does without
    from ..graphql.engine import Engine  # noqa: PLC0415
    from ..graphql.executable import build_schema  # noqa: PLC0415
    from ..pages.routes import page_routes  # noqa: PLC0415
    from ..sources import open_sources  # noqa: PLC0415

    sources = open_sources(settings)
    checks |= sources.checks
    closers.append(sources.close)
    authentication = _open_authentication(settings, checks, closers)
    engine = Engine(build_schema(development=settings.development), development=settings.development)
    routes = [
        graphql_route(engine, sources, authentication, settings.boosts),
        *page_routes(settings.development),
        *_open_console(settings, authentication, closers),
    ]
    return Parts(sources.arm, authentication, checks, _needed(settings), routes, closers, settings.trust_traceparent)


def _open_console(
    settings: ServingSettings, authentication: Authentication, closers: list[Closer]
) -> Sequence[BaseRoute]:
    """The operators' console, where there is what it shows."""
    if not settings.has_console:
        return ()
    from ..console.opening import open_console  # noqa: PLC0415 - with clients of all it can look into
    from ..pages.routes import console_routes  # noqa: PLC0415 - with the pages' files

    console = open_console(settings, authentication)
    closers.extend(console.closers)
    return [*console_routes(), *console.routes]


async def check_parts(settings: ServingSettings) -> None:
    """Opens the parts once and closes them.

    Raises:
        FanIdentityError: a setting is wrong.
    """
    parts = await open_parts(settings)
    for close in reversed(parts.closers):
        await close()


def _open_table(settings: ServingSettings, checks: dict[str, Check], closers: list[Closer]) -> AsyncTable:
    address = settings.table or settings.store
    if address is None:
        raise UsageError("--table: an address is needed, such as dynamodb://fans (or --store sqlite:///fans.db)")
    opened = open_fan_table(address, "table" if settings.table else "store", settings.upstream_deadline.total_seconds())
    checks["fan_identity"] = opened.check
    closers.append(opened.close)
    return opened.table


def _open_authentication(settings: ServingSettings, checks: dict[str, Check], closers: list[Closer]) -> Authentication:
    verifier, keys, limits = None, None, None
    if settings.token_issuer is not None:
        verifier = TokenVerifier.of(settings)
        checks["jwks"] = verifier.check
    if settings.api_keys is not None:
        keys = ApiKeys(Path(settings.api_keys))
        address = settings.cache or settings.store or ""
        limiter = open_rate_limiter(parse_address(address, "cache" if settings.cache else "store"), "cache")
        limits = KeyLimits(keys, limiter)
        closers.append(limiter.close)
    return Authentication(verifier, keys, limits)
