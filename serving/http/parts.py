"""From the settings to the parts of the application."""

from ..arm import ArmLookup
from ..settings import ServingSettings
from ..tokens.verifier import TokenVerifier
from .app import Parts
from .authentication import Authentication
from .health import Check


async def open_parts(settings: ServingSettings) -> Parts:
    """The parts of the settings, for the event loop this runs on.

    Raises:
        FanIdentityError: a setting is wrong.
    """
    verifier = None if settings.token_issuer is None else TokenVerifier.of(settings)
    authentication = Authentication(verifier)
    arm = ArmLookup.of(
        settings.cache, settings.store, deadline_seconds=settings.arm_deadline.total_seconds(), table=None
    )
    checks: dict[str, Check] = {"cache": arm.check}
    return Parts(arm, authentication, checks, (), (arm.close,))


async def check_parts(settings: ServingSettings) -> None:
    """Opens the parts once and closes them.

    Raises:
        FanIdentityError: a setting is wrong.
    """
    parts = await open_parts(settings)
    for close in parts.closers:
        await close()
