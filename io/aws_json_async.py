"""Calls of AWS services that speak JSON (DynamoDB), for code on an event loop.

As ``aws_json``: boto3 finds endpoint, region and credentials, botocore's own signer signs, and what is left out is
boto3's way through its service model and its threads. Connections are kept; the environment's proxies and CA bundles
count. Nothing is tried again here.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import boto3
import msgspec
from botocore import httpsession, utils
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from yarl import URL

from .addresses import Address
from .aws import THROTTLED, client, translated_errors
from .caller import RefusedError, TransientError

MAX_ANSWER_BYTES: Final = 16_000_000
"""Answers beyond this are refused: a page of DynamoDB's holds 1 MB of items, in JSON up to six times as much."""

_FRESH_SECONDS: Final = 10.0
# botocore renews credentials well before they expire, when asked for them: minutes before. Asking means a lock and
# perhaps a request, so it is done in a thread, and not for every call.

_KEEP_ALIVE_SECONDS: Final = 15.0  # less than servers keep a connection, so that none is found closed
_CONNECTIONS: Final = 256
_SERVER_ERRORS: Final = 500
_SUCCESS: Final = 200

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_botocore: Any = (httpsession, utils)  # botocore has no types
_httpsession, _utils = _botocore


class AwsRefusedError(RefusedError):
    """The service answered that it will not do it.

    Attributes:
        code: the service's error code, without its namespace.
        answer: the whole error as sent; may quote what was asked, so it belongs in no log.
    """

    def __init__(self, service: str, code: str, status: int, answer: Mapping[str, Any]) -> None:
        super().__init__(f"{service}_refused", code or f"status {status}", status=status)
        self.code = code
        self.answer = answer


class ThrottledError(TransientError):
    """The service was asked too much."""


@dataclass(frozen=True)
class Route:
    """Where requests go and how they are signed."""

    url: str
    headers: Mapping[str, str]
    target: str
    signing_name: str
    region: str
    credentials: Any
    trusted: ssl.SSLContext | bool
    proxy: str | None


class AsyncAwsClient:
    """Calls operations of one service, on one event loop; connects when first used.

    Args:
        service: boto3's name, ``dynamodb``.
        address: whose options ``region`` and ``endpoint`` count.
        setting: where the address came from, for errors.
    """

    def __init__(self, service: str, address: Address, setting: str) -> None:
        self._service = service
        self._address = address
        self._setting = setting
        self._route: asyncio.Task[Route] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._frozen: Any = None
        self._frozen_at = float("-inf")
        self._renewing = asyncio.Lock()

    async def call(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Calls an operation once.

        Args:
            operation: the service's name of it, ``GetItem``.
            parameters: JSON values, names as in the service's API; bytes become base64.

        Returns:
            The answer.

        Raises:
            TransientError: out of reach, throttled or an error of the service's own (``status`` 0 where there was no
                answer): the operation may have had its effect.
            AwsRefusedError: it will not.
            UsageError: there is no region, or no credentials.
            BackendUnavailableError: credentials could not be renewed.
        """
        route = await self.open()
        request: Any = AWSRequest(
            "POST", route.url, {**route.headers, "X-Amz-Target": f"{route.target}.{operation}"}, _encode(parameters)
        )
        signer: Any = SigV4Auth(await self._fresh_credentials(route), route.signing_name, route.region)
        signer.add_auth(request)
        try:
            async with self._connections(route).post(
                URL(route.url, encoded=True),
                data=request.body,
                headers=dict(request.headers.items()),
                allow_redirects=False,
                proxy=route.proxy,
            ) as response:
                return self._read(response.status, await self._body(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Only the error's kind: its text may hold what was asked.
            raise TransientError(f"{self._service}: {type(error).__name__}") from None

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()

    async def open(self) -> Route:
        """Looks up where the service is and who asks, once; callers meanwhile wait. Tried again where that failed.

        Raises:
            UsageError: there is no region.
            BackendUnavailableError: what boto3 asks for credentials is out of reach.
        """
        while self._route is None or (self._route.done() and self._route.exception() is not None):
            self._route = asyncio.create_task(asyncio.to_thread(self._look_up))
            await asyncio.wait([self._route])
            self._route.result()
        return await asyncio.shield(self._route)

    def _look_up(self) -> Route:
        with translated_errors(self._setting, self._address):
            boto3_client = client(self._service, self._address, self._setting)
            meta: Any = boto3_client.meta
            session: Any = boto3.DEFAULT_SESSION or boto3.Session()
            model: Any = meta.service_model
            return Route(
                str(meta.endpoint_url).rstrip("/") + "/",
                {
                    "Content-Type": f"application/x-amz-json-{model.metadata['jsonVersion']}",
                    "User-Agent": str(meta.config.user_agent),
                    "Accept-Encoding": "identity",
                },
                str(model.metadata["targetPrefix"]),
                str(model.signing_name),
                str(meta.region_name),
                session.get_credentials(),
                _trusted(session) if str(meta.endpoint_url).startswith("https:") else True,
                _utils.get_environ_proxies(str(meta.endpoint_url)).get(urlsplit(str(meta.endpoint_url)).scheme),
            )

    async def _fresh_credentials(self, route: Route) -> Any:
        if time.monotonic() - self._frozen_at < _FRESH_SECONDS:
            return self._frozen
        async with self._renewing:
            if time.monotonic() - self._frozen_at >= _FRESH_SECONDS:
                self._frozen = await asyncio.to_thread(self._freeze, route.credentials)
                self._frozen_at = time.monotonic()
        return self._frozen

    def _freeze(self, credentials: Any) -> Any:
        with translated_errors(self._setting, self._address):
            if credentials is None:
                from botocore.exceptions import NoCredentialsError  # noqa: PLC0415

                raise NoCredentialsError
            return credentials.get_frozen_credentials()

    def _connections(self, route: Route) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=_CONNECTIONS, keepalive_timeout=_KEEP_ALIVE_SECONDS, ssl=route.trusted
                ),
                timeout=aiohttp.ClientTimeout(total=None),  # who calls has a deadline
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise AwsRefusedError(self._service, "an answer too large", response.status, {})
        return bytes(body)

    def _read(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            answer = _decode(body) if body else {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            if status >= _SERVER_ERRORS:
                raise TransientError(f"{self._service}: status {status}", status=status) from None
            raise AwsRefusedError(self._service, "an answer that is not JSON", status, {}) from None
        if status == _SUCCESS:
            return answer
        code = str(answer.get("__type") or answer.get("code") or "").rpartition("#")[2].partition(":")[0]
        if code in THROTTLED:
            raise ThrottledError(f"{self._service}: {code}", status=status)
        if status >= _SERVER_ERRORS:
            raise TransientError(f"{self._service}: {code or f'status {status}'}", status=status)
        self._frozen_at = float("-inf")  # should it be the credentials, they are asked for anew
        raise AwsRefusedError(self._service, code, status, answer)


def _trusted(session: Any) -> ssl.SSLContext:
    """TLS that trusts what boto3 trusts; reading the certificates takes a while, so it is done with the looking up."""
    bundle = session._session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    return ssl.create_default_context(cafile=bundle or _httpsession.get_cert_path(True))
