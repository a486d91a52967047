"""What we ask of an Unleash server: its flags, and that it shows which of them are in use.

Its answers are distrusted: each has a deadline as a whole, however slowly it drips, and a size; none is unpacked, and
a redirect is not followed, since the token would go with it.

Source: https://docs.getunleash.io/reference/api/unleash (client API: features, register, metrics).
"""

import asyncio
import os
import platform
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import msgspec

from .. import __version__
from .last_known_flags import MAX_STATE_BYTES

DEADLINE_SECONDS: Final = 3.0
"""For a whole answer."""

_APP: Final = "fan-identity"
_OK: Final = 200
_NOT_MODIFIED: Final = 304
_REFUSED: Final = (401, 403)


class FlagServerError(Exception):
    """The server gave no answer that can be used; the message is one line without a word of it."""


class FlagServer:
    """An Unleash server. Made and used on one event loop.

    Args:
        url: of its API, ``http://host:4242/api``.
        token: a backend token.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._etag = self._unaccepted = ""
        self._started = datetime.now(UTC)
        self._session = aiohttp.ClientSession(
            headers={
                "Authorization": token,
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Unleash-Appname": _APP,
                "Unleash-Instanceid": _instance(),
                "Unleash-Sdk": f"{_APP}:{__version__}",
            },
            timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=True,
        )

    async def flags(self, seconds: float = DEADLINE_SECONDS) -> bytes | None:
        """Its flags as JSON; None where they are those of the answer accepted last.

        Args:
            seconds: to wait for the whole answer.

        Raises:
            FlagServerError: no answer in time, another status than 200, too large.
        """
        headers = {"If-None-Match": self._etag} if self._etag else {}
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.get(f"{self._url}/client/features", headers=headers, allow_redirects=False) as answer,
            ):
                if answer.status == _NOT_MODIFIED and self._etag:
                    return None
                if answer.status != _OK:
                    refused = " (it refuses the token)" if answer.status in _REFUSED else ""
                    raise FlagServerError(f"status {answer.status}{refused}")
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > MAX_STATE_BYTES:
                        raise FlagServerError(f"its answer is larger than {MAX_STATE_BYTES >> 20} MiB")
                self._unaccepted = answer.headers.get("ETag", "")
        except TimeoutError:
            raise FlagServerError("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise FlagServerError(type(error).__name__) from None  # its text may hold the URL
        return bytes(body)

    def accepted(self) -> None:
        """The last answer was flags: it is not to be sent again as long as it stays the same."""
        self._etag = self._unaccepted

    async def register(self, interval_seconds: float) -> None:
        """Tells that this process is there, so that the server lists it. What goes wrong is of no matter."""
        await self._tell(
            "register", {"strategies": [], "started": self._started.isoformat(), "interval": interval_seconds}
        )

    async def tell_use(self, bucket: dict[str, Any]) -> None:
        """Tells how often which toggle was asked for, as the engine counts it. What goes wrong is of no matter."""
        await self._tell("metrics", {"bucket": bucket})

    async def _tell(self, what: str, value: dict[str, Any]) -> None:
        about = {
            "appName": _APP,
            "instanceId": _instance(),
            "sdkVersion": f"{_APP}:{__version__}",
            "platformName": platform.python_implementation(),
            "platformVersion": platform.python_version(),
        }
        headers = {"Content-Type": "application/json"}
        try:
            async with self._session.post(
                f"{self._url}/client/{what}",
                data=msgspec.json.encode(about | value),
                headers=headers,
                allow_redirects=False,
            ):
                pass
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            pass

    async def close(self) -> None:
        """Ends its connections."""
        await self._session.close()


def _instance() -> str:
    return f"{_APP}-{os.getpid()}"
