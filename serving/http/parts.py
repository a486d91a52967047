"""From the settings to the parts of the application."""

from pathlib import Path

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
from .health import Check


async def open_parts(settings: ServingSettings) -> Parts:
    """The parts of the settings, for the event loop this runs on.

    Raises:
        FanIdentityError: a setting is wrong.
    """
    checks: dict[str, Check] = {}
    closers: list[Closer] = []
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
    return Parts(arm, authentication, checks, (), closers)


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
    checks["table"] = opened.check
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
