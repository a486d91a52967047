"""JSON over HTTP, for services that are called many times a second: connections are kept, answers are distrusted.

One aiohttp session a service and event loop. Answers are capped in size, must be JSON by their content type and be
strict JSON (RFC 8259: no NaN), and a redirect is followed only within the same origin.
"""

import asyncio
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
import msgspec
from yarl import URL

from ..domain.keys import loggable_id
from .addresses import Address, check_options, int_option, parse_address
from .caller import Caller, CallLimits, RefusedError, TransientError
from .errors import UsageError
from .event_loop import close_at_end
from .telemetry import tracing

MAX_ANSWER_BYTES: Final = 1_000_000
"""Answers beyond this are refused, whatever they hold."""

HTTP_OPTIONS: Final = frozenset({"in-flight", "timeout", "deadline", "token-env", "health"})
"""What every HTTP address takes: calls at the same time, seconds for an attempt, seconds for an item with its retries,
the environment variable that holds the bearer token, and the path on that host which checkLiveness asks."""

_MAX_REDIRECTS: Final = 3
_KEEP_ALIVE_SECONDS: Final = 30
_JSON_TYPES: Final = re.compile(r"application/(?:[\w.+-]+\+)?json")
_TOKEN_ENV: Final = re.compile(r"FAN_IDENTITY_[A-Z0-9_]{1,80}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")

_PRECONDITION: Final = frozenset({401, 403, 404, 405, 407})
"""Statuses that tell of credentials or a path, not of what was sent: mended, the same request works."""

_TRANSIENT: Final = frozenset({408, 425, 429})

_Sessions = dict["JsonApi", aiohttp.ClientSession]
_sessions: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Sessions]] = WeakKeyDictionary()


@dataclass(frozen=True)
class JsonApi:
    """A service that speaks JSON over HTTP. Holds text only, so it pickles; the token is read where it is used.

    Attributes:
        service: its name, in reasons and errors: ``model``.
        url: ``https://host/path`` without a trailing slash.
        setting: where the address came from, for errors.
        token_env: the environment variable that may hold a bearer token.
        limits: what bounds calls.
    """

    service: str
    url: str
    setting: str
    token_env: str
    limits: CallLimits

    @classmethod
    def of(cls, text: str, setting: str, service: str, *, options: frozenset[str] = frozenset()) -> "JsonApi":
        """The service behind an address ``https://host/path?option=value``.

        Args:
            text: the address.
            setting: where it came from.
            service: its name.
            options: option names known besides ``HTTP_OPTIONS``.

        Raises:
            UsageError: no http(s) address, credentials in it, an unknown option, or a token no header can carry.
        """
        address = parse_address(text, setting)
        check_options(address, setting, HTTP_OPTIONS | options)
        url = _checked_url(address, setting)
        timeout = int_option(address, setting, "timeout", int(CallLimits.attempt_seconds), least=1)
        deadline = int_option(address, setting, "deadline", max(int(CallLimits.deadline_seconds), timeout), least=1)
        in_flight = int_option(address, setting, "in-flight", CallLimits.in_flight, least=1)
        token_env = address.options.get("token-env", f"FAN_IDENTITY_{service.upper()}_TOKEN")
        if not _TOKEN_ENV.fullmatch(token_env):
            raise UsageError(f"--{setting}: token-env names an environment variable FAN_IDENTITY_…, not a token")
        api = cls(
            service,
            url,
            setting,
            token_env,
            CallLimits(
                in_flight=in_flight,
                attempt_seconds=timeout,
                deadline_seconds=deadline,
                batch_seconds=max(CallLimits.batch_seconds, deadline),
            ),
        )
        api.token()
        return api

    @property
    def caller(self) -> Caller:
        """Calls this service under its limits."""
        return Caller(self.service, self.url, self.limits)

    def token(self) -> str | None:
        """The bearer token from the environment, or None.

        Raises:
            UsageError: no header can carry it.
        """
        token = os.environ.get(self.token_env, "").strip()
        if token and not _TOKEN.fullmatch(token):
            raise UsageError(f"{self.token_env}: a bearer token is visible ASCII without spaces")
        return token or None

    async def get(self, path: str, correlation_id: str) -> Any:
        """GETs a JSON value.

        Args:
            path: after ``url``, percent-encoded; taken as it is.
            correlation_id: of the run or batch, for the service's log.

        Returns:
            The decoded value.

        Raises:
            TransientError: no answer, 429 or 5xx.
            RefusedError: another status (``<service>_refused``), or no JSON (``<service>_invalid``).
        """
        return self.decode(await self._send("GET", path, None, correlation_id, {}))

    async def post(
        self, path: str, body: bytes, correlation_id: str, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """POSTs JSON.

        Args:
            path: after ``url``, percent-encoded; taken as it is.
            body: JSON in UTF-8.
            correlation_id: of the run or batch, for the service's log.
            headers: further headers.

        Returns:
            The answer's body, of JSON's content type; b"" where the answer has none.

        Raises:
            TransientError: no answer, 429 or 5xx.
            RefusedError: another status (``<service>_refused``), too large or not of JSON's type (``…_invalid``).
        """
        return await self._send("POST", path, body, correlation_id, headers or {})

    def decode(self, body: bytes) -> Any:
        """Reads strict JSON.

        Raises:
            RefusedError: it is none.
        """
        try:
            return msgspec.json.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise self.invalid("the answer is not JSON") from None

    def invalid(self, problem: str) -> RefusedError:
        """The error for an answer that cannot be used; ``problem`` must not repeat the answer's values."""
        return RefusedError(f"{self.service}_invalid", f"{self.service}: {problem}")

    async def _send(
        self, method: str, path: str, body: bytes | None, correlation_id: str, more: Mapping[str, str]
    ) -> bytes:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # what is not unpacked cannot be a decompression bomb
            "x-request-id": uuid.uuid4().hex,
            "x-correlation-id": loggable_id(correlation_id),
            **more,
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token := self.token():
            headers["Authorization"] = f"Bearer {token}"
        headers |= tracing.outgoing()
        url = URL(self.url + path, encoded=True)
        try:
            for _ in range(_MAX_REDIRECTS + 1):
                async with self._session().request(
                    method, url, data=body, headers=headers, allow_redirects=False
                ) as response:
                    tracing.note_http(method, url.host or "", url.port or 0, response.status)
                    target = self._redirect(response, method)
                    if target is None:
                        return await self._checked_body(response)
                    url = target
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Only the error's kind: its text may hold the URL, and with it a user id.
            raise TransientError(f"{self.service}: {type(error).__name__}") from None
        raise self._refused("it redirects in circles", retryable=True)

    def _redirect(self, response: aiohttp.ClientResponse, method: str) -> URL | None:
        """Where an answer redirects to; None where it is a real answer.

        Raises:
            RefusedError: to another origin, or one that would turn a POST into a GET.
        """
        if not 300 <= response.status < 400:  # noqa: PLR2004 - HTTP's classes of statuses
            return None
        kept = response.status in (307, 308) or (method == "GET" and response.status in (301, 302))
        location = response.headers.get("Location")
        if kept and location:
            target = response.url.join(URL(location, encoded=True))
            if target.origin() == response.url.origin() and target.user is None:
                return target
        raise self._refused(f"it redirects elsewhere ({response.status})", retryable=True)

    async def _checked_body(self, response: aiohttp.ClientResponse) -> bytes:
        status = response.status
        if status >= 500 or status in _TRANSIENT:  # noqa: PLR2004
            wait = _retry_after(response.headers.get("Retry-After"))
            raise TransientError(f"{self.service}: status {status}", retry_after=wait, status=status)
        if not 200 <= status < 300:  # noqa: PLR2004
            raise self._refused(f"status {status}", retryable=status in _PRECONDITION, status=status)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self.invalid("the answer is compressed, which was not asked for")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise self.invalid(f"the answer is larger than {MAX_ANSWER_BYTES:,} bytes")
        if body and not _JSON_TYPES.fullmatch(response.content_type):
            raise self.invalid("the answer's content type is not JSON")
        return bytes(body)

    def _refused(self, problem: str, *, retryable: bool, status: int = 0) -> RefusedError:
        return RefusedError(f"{self.service}_refused", f"{self.service}: {problem}", retryable=retryable, status=status)

    def _session(self) -> aiohttp.ClientSession:
        sessions = _sessions.setdefault(asyncio.get_running_loop(), {})
        session = sessions.get(self)
        if session is None or session.closed:
            session = aiohttp.ClientSession(
                # Caller bounds calls in flight and their time.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            # aiohttp sends a GET a second time by itself where its connection ends. Whether to is Caller's to say.
            session._retry_connection = False  # pyright: ignore[reportPrivateUsage] - as aiohttp's own tests do
            sessions[self] = session
            close_at_end(session.close)
        return session


async def close_sessions() -> None:
    """Ends the connections made on this event loop; for loops other than the background's, which does so itself."""
    for session in _sessions.pop(asyncio.get_running_loop(), {}).values():
        await session.close()


def _checked_url(address: Address, setting: str) -> str:
    if address.scheme not in ("http", "https"):
        raise UsageError(f"--{setting}: {address.scheme}:// is not supported here; write https://host/path")
    url = f"{address.scheme}://{address.target}".rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        URL(url)
    except ValueError:
        host = None
    else:
        if parts.username is not None or parts.password is not None:
            raise UsageError(f"--{setting}: no credentials in an address; a token comes from the environment")
        if parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
            host = None
    if not host:
        raise UsageError(f"--{setting}: not an address of a service; write for example https://host/path")
    return url


def _retry_after(text: str | None) -> float:
    """Seconds of a ``Retry-After`` header, a number or a date (RFC 9110, 10.2.3); 0 where there is none."""
    if not text:
        return 0.0
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
