"""Calls of AWS services that speak JSON (SQS, DynamoDB), at a sixth of the CPU that boto3 takes for one.

boto3 stays the one who knows: it finds region, endpoint and credentials, and its first call shows where requests go and
how they are signed. Calls after it go the same way over kept-alive connections, with the body as JSON and a signature
of Version 4 (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html). Where boto3
does anything else (a proxy, another signature), boto3 goes on doing it.
"""

import hmac
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import botocore.httpsession
import botocore.parsers
import botocore.utils
import msgspec
from botocore.exceptions import HTTPClientError

from .kept_alive import Answer, Connections

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_MEDIA: Final = ("application/x-amz-json-1.0", "application/x-amz-json-1.1")
_REFUSED: Final = 300
_QUERY_MODE: Final = "x-amzn-query-mode"
"""Sent to services that once spoke another protocol (SQS): they name errors as they did then, as boto3 does."""

# No types.
_httpsession: Any = botocore.httpsession
_parsers: Any = botocore.parsers
_utils: Any = botocore.utils

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


@cache
def json_client(client: Any) -> "JsonClient":
    """The cheap way to call a boto3 client's service; one for each client."""
    return JsonClient(client)


class JsonClient:
    """Calls operations as a boto3 client has them; see the module. Thread-safe.

    For operations whose parameters and answers are JSON as they stand: no bytes, no times. Nothing is tried again, but
    for a connection that the server had closed: who calls does that, with a deadline of its own.

    Args:
        client: boto3's client, made from boto3's default session.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._route: _Route | None = None
        client.meta.events.register("before-send", self._learn)

    def call(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Calls an operation.

        Args:
            operation: boto3's name of it, ``send_message_batch``.
            parameters: as boto3 takes them.

        Returns:
            The answer as boto3 gives it, without ``ResponseMetadata``.

        Raises:
            ClientError: the service refuses; of the class, and with the code, that boto3 would raise.
            BotoCoreError: the service is out of reach or its answer not JSON, or there are no credentials.
        """
        route = self._route
        if route is None:
            return dict(getattr(self._client, operation)(**parameters))
        name: str = self._client.meta.method_to_api_mapping[operation]
        body = _encoded(parameters)
        answer = route.connections.post(route.signer.head(name, body), body)
        if answer.status >= _REFUSED:
            raise self._error(name, answer)
        return _decoded(answer.body)

    def _learn(self, request: Any, **_: Any) -> None:
        """Looks at what boto3 is about to send; boto3 sends it whatever this makes of it."""
        if self._route is None:
            self._route = _route_of(request, self._client)

    def _error(self, name: str, answer: Answer) -> Exception:
        shape = self._client.meta.service_model.operation_model(name).output_shape
        told = {"status_code": answer.status, "headers": answer.headers, "body": answer.body}
        parsed: Any = _parsers.ResponseParserFactory().create_parser("json").parse(told, shape)
        error: Any = parsed.get("Error", {})
        kind: Any = self._client.exceptions.from_code(error.get("QueryErrorCode") or error.get("Code"))
        return kind(parsed, name)


class _Route:
    def __init__(self, connections: Connections, signer: "Signer") -> None:
        self.connections = connections
        self.signer = signer


class Signer:
    """Writes the head of requests to one service, signed.

    Args:
        credentials: gives the credentials to use now; the session's refresh themselves.
        region: of the signature.
        service: of the signature.
        url: where requests go.
        headers: ``content-type``, ``user-agent``, ``x-amz-target`` up to its last dot, and ``x-amzn-query-mode`` where
            that is sent.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        credentials: Callable[[], Any],
        region: str,
        service: str,
        url: str,
        headers: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(url)
        self._credentials = credentials
        self._path = parts.path or "/"
        self._host = parts.netloc
        self._scope = (region, service, "aws4_request")
        self._media, self._agent, self._target = (
            headers[name] for name in ("content-type", "user-agent", "x-amz-target")
        )
        self._query_mode = headers.get(_QUERY_MODE)
        self._clock = clock
        self._key: tuple[tuple[str, str], bytes] = (("", ""), b"")

    def head(self, operation: str, body: bytes) -> bytes:
        """Request line and headers of a call, with the empty line after them.

        Args:
            operation: the service's name of it, ``SendMessageBatch``.
            body: of the request.
        """
        credentials = self._credentials()
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        token: str | None = credentials.token
        headers = {"content-type": self._media, "host": self._host, "x-amz-date": moment}
        if token:
            headers["x-amz-security-token"] = token
        headers["x-amz-target"] = f"{self._target}.{operation}"
        if self._query_mode is not None:
            headers[_QUERY_MODE] = self._query_mode
        lines = "".join([f"{name}:{text}\n" for name, text in headers.items()])
        names = ";".join(headers)
        canonical = f"POST\n{self._path}\n\n{lines}\n{names}\n{sha256(body).hexdigest()}"
        scope = "/".join((moment[:8], *self._scope))
        text = f"{_ALGORITHM}\n{moment}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(credentials.secret_key, moment[:8]), text.encode(), "sha256").hex()
        sent = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return (
            f"POST {self._path} HTTP/1.1\r\n{sent}"
            f"authorization: {_ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}\r\n"
            f"user-agent: {self._agent}\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()

    def _signing_key(self, secret: str, day: str) -> bytes:
        known, key = self._key
        if known != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, *self._scope):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = ((secret, day), key)
        return key


def _route_of(request: Any, client: Any) -> _Route | None:
    """The way of a request that boto3 prepared; None where it is not one to be gone here."""
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    media, target = headers.get("content-type", ""), headers.get("x-amz-target", "")
    algorithm, _, signed = headers.get("authorization", "").partition(" ")
    if request.method != "POST" or media not in _MEDIA or algorithm != _ALGORITHM or "." not in target:
        return None
    url = str(request.url)
    if (
        urlsplit(url).query
        or client.meta.config.proxies
        or client.meta.config.client_cert
        or _utils.get_environ_proxies(url)
    ):
        return None
    session: Any = boto3.DEFAULT_SESSION
    credentials: Any = session and session.get_credentials()
    access_key, _, region, service, _ = signed.partition(",")[0].removeprefix("Credential=").split("/")
    if credentials is None or credentials.get_frozen_credentials().access_key != access_key:
        return None
    config = client.meta.config
    return _Route(
        Connections(
            url,
            config.connect_timeout,
            config.read_timeout,
            lambda: _context(session._session.get_config_variable),
        ),
        Signer(
            credentials.get_frozen_credentials,
            region,
            service,
            url,
            {"user-agent": "", **headers, "x-amz-target": target.rpartition(".")[0]},
        ),
    )


def _context(variable: Callable[[str], str | None]) -> ssl.SSLContext:
    """TLS that trusts what boto3 trusts."""
    trusted = variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or _httpsession.get_cert_path(True)
    return ssl.create_default_context(cafile=trusted)


def _encoded(parameters: Mapping[str, Any]) -> bytes:
    try:
        return _encode(parameters)
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
        return json.dumps(parameters).encode()


def _decoded(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        return _decode(body)
    except (msgspec.MsgspecError, ValueError):
        try:
            value: Any = json.loads(body)  # half a surrogate pair again
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value  # pyright: ignore[reportUnknownVariableType]
        raise HTTPClientError(error="the answer is not a JSON object") from None


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
