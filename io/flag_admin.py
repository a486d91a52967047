"""Switches toggles of an Unleash server through its admin API, for who has a token for that.

Source: https://docs.getunleash.io/reference/api/unleash (search, features of projects).
"""

import asyncio
import os
import re
from typing import Any, Final
from urllib.parse import quote

import msgspec

from .caller import CallLimits, RefusedError, TransientError
from .errors import UnavailableError
from .flags import TOKEN_ENV, UnleashFlags
from .http_json import JsonApi

ADMIN_TOKEN_ENV: Final = "FAN_IDENTITY_UNLEASH_ADMIN_TOKEN"  # noqa: S105 - the variable's name
_SECONDS: Final = 3.0
_SOURCE: Final = "flags"
_ENVIRONMENT: Final = re.compile(r"[^:]+:([A-Za-z0-9_.~-]{1,100})\.[^.]+")


class _Feature(msgspec.Struct):
    name: str
    project: str


class _Found(msgspec.Struct):
    features: list[_Feature]


class FlagAdmin:
    """Switches toggles. Used on one event loop.

    Args:
        flags: the server, and the environment where its token does not say which.
    """

    def __init__(self, flags: UnleashFlags) -> None:
        limits = CallLimits(attempt_seconds=_SECONDS, deadline_seconds=_SECONDS)
        self._api = JsonApi(_SOURCE, f"{flags.url}/admin", "flags", ADMIN_TOKEN_ENV, limits)
        self._api.token()
        self._environment = environment_of(os.environ.get(TOKEN_ENV, "")) or flags.environment

    @classmethod
    def of(cls, flags: object) -> "FlagAdmin | None":
        """Of flags of a server, where the environment has a token of its admin API; else None.

        Raises:
            UsageError: no header can carry the token.
        """
        there = isinstance(flags, UnleashFlags) and os.environ.get(ADMIN_TOKEN_ENV, "").strip()
        return cls(flags) if there and isinstance(flags, UnleashFlags) else None

    async def switch(self, toggle: str, *, enabled: bool, correlation_id: str) -> bool:
        """Switches a toggle on or off, in the environment whose flags apply here.

        Returns:
            False where the server has no such toggle.

        Raises:
            UnavailableError: the server cannot be reached or refuses; whether it was switched is then not known.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                project = await self._project_of(toggle, correlation_id)
                if project is None:
                    return False
                where = "/".join(
                    ["/projects", _part(project), "features", _part(toggle), "environments", _part(self._environment)]
                )
                await self._api.post(f"{where}/{'on' if enabled else 'off'}", b"{}", correlation_id)
        except TimeoutError:
            raise UnavailableError(_SOURCE, "no answer in time") from None
        except (TransientError, RefusedError) as error:
            raise UnavailableError(_SOURCE, str(error)) from None
        return True

    async def _project_of(self, toggle: str, correlation_id: str) -> str | None:
        told: Any = await self._api.get(f"/search/features?query={_part(toggle)}&limit=100", correlation_id)
        try:
            found = msgspec.convert(told, _Found)
        except msgspec.ValidationError:
            raise self._api.invalid("its answer is no list of toggles") from None
        return next((feature.project for feature in found.features if feature.name == toggle), None)


def environment_of(token: str) -> str | None:
    """The environment a backend token is of, ``project:environment.secret``; None where it is none.

    >>> environment_of("default:development.abc"), environment_of("abc")
    ('development', None)
    """
    found = _ENVIRONMENT.fullmatch(token.strip())
    return None if found is None else found[1]


def _part(text: str) -> str:
    return quote(text, safe="")
