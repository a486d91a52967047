"""Calls of AWS services that speak JSON (SQS, DynamoDB), at a fraction of the CPU that boto3 takes for one.

boto3 stays the one who knows: it finds region, endpoint and credentials, and its first call shows where requests go and
how they are signed. Calls after it go the same way: the body as JSON, signed by botocore's own signer, over
kept-alive connections. Whether and when one that failed is tried again is asked of boto3's own retry mode. What is left
out is boto3's way through its service model, which costs most of a call. Where boto3 does anything else (a proxy,
another signature), boto3 goes on doing it.
"""

import json
import os
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit
from zlib import crc32

import boto3
import msgspec
from botocore import httpsession, parsers, utils
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_MEDIA: Final = ("application/x-amz-json-1.0", "application/x-amz-json-1.1")
_KEPT: Final = ("content-type", "user-agent", "x-amzn-query-mode")
_CHECKSUM: Final = "x-amz-crc32"
_REFUSED: Final = 300

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_botocore: Any = (httpsession, parsers, utils)  # botocore has no types
_httpsession, _parsers, _utils = _botocore


class _Answer(msgspec.Struct, frozen=True, gc=False):
    status: int
    headers: Mapping[str, str]
    data: bytes


@cache
def json_client(client: Any) -> "JsonClient":
    """The cheap way to call a boto3 client's service; one for each client."""
    return JsonClient(client)


class JsonClient:
    """Calls operations as a boto3 client has them; see the module. Thread-safe.

    For operations whose parameters and answers are JSON as they stand. Bytes may be given, and come back as their
    base64; times cannot be given.

    Args:
        client: boto3's client, made from boto3's default session.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._route: _Route | None = None
        client.meta.events.register("before-send", self._learn)

    def call(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Calls an operation once.

        Nothing is tried again, but for a connection that the server had closed: who calls does that, with a deadline
        of its own.

        Args:
            operation: boto3's name of it, ``send_message_batch``.
            parameters: as boto3 takes them.

        Returns:
            The answer as boto3 gives it, without ``ResponseMetadata``.

        Raises:
            ClientError: the service refuses; of the class, and with the code, that boto3 would raise.
            BotoCoreError: the service is out of reach or its answer not JSON or torn, or there are no credentials.
        """
        route = self._route
        if route is None:
            return self._boto3(operation, parameters)
        name: str = self._client.meta.method_to_api_mapping[operation]
        answer = route.post(name, _encoded(parameters))
        if answer.status >= _REFUSED:
            raise self._error(name, answer)
        return _decoded(answer.data)

    def call_with_retries(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Calls an operation as ``call`` does; again where boto3 would, as often and after the same pauses."""
        route = self._route
        if route is None:
            return self._boto3(operation, parameters)
        name: str = self._client.meta.method_to_api_mapping[operation]
        tries = _Retries(self._client, name)
        body = _encoded(parameters)
        for attempt in count(1):
            answer = None
            try:
                answer = route.post(name, body)
                if answer.status >= _REFUSED:
                    raise self._error(name, answer)
                decoded = _decoded(answer.data)
            except (ClientError, BotoCoreError) as error:
                pause = tries.pause(attempt, error, answer)
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                tries.done(answer)
                return decoded
        raise AssertionError("boto3 gives up some time")

    def _boto3(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return dict(getattr(self._client, operation)(**parameters))

    def _learn(self, request: Any, **_: Any) -> None:
        """Looks at what boto3 is about to send; boto3 sends it whatever this makes of it."""
        if self._route is None:
            self._route = _route_of(request, self._client)

    def _error(self, name: str, answer: _Answer) -> Exception:
        shape = self._client.meta.service_model.operation_model(name).output_shape
        told = {"status_code": answer.status, "headers": answer.headers, "body": answer.data}
        parsed: Any = _parsers.ResponseParserFactory().create_parser("json").parse(told, shape)
        error: Any = parsed.get("Error", {})
        kind: Any = self._client.exceptions.from_code(error.get("QueryErrorCode") or error.get("Code"))
        return kind(parsed, name)


class _Retries:
    """What boto3's retry mode makes of one call: its number of tries, its pauses, its budget for all calls together."""

    def __init__(self, client: Any, name: str) -> None:
        self._events = client.meta.events
        self._model = client.meta.service_model.operation_model(name)
        self._event = f"{client.meta.service_model.service_id.hyphenize()}.{name}"
        self._context: dict[str, Any] = {}  # where boto3 notes what a try took from the budget

    def pause(self, attempt: int, error: Exception, answer: _Answer | None) -> float | None:
        """Seconds until the next try; None where there is to be none."""
        told: Any = None
        if answer is not None and isinstance(error, ClientError):
            refusal: Any = error
            told = AWSResponse("", answer.status, answer.headers, None), refusal.response
        opinions: Any = self._events.emit(
            f"needs-retry.{self._event}",
            response=told,
            endpoint=None,
            operation=self._model,
            attempts=attempt,
            caught_exception=error if told is None else None,
            request_dict={"context": self._context},
        )
        # False is a no, too; 0.0 is not.
        return next((float(pause) for _, pause in opinions if pause is not None and pause is not False), None)

    def done(self, answer: _Answer) -> None:
        """Gives back what the call's tries took from the budget."""
        headers: dict[str, str] = {}
        self._events.emit(
            f"after-call.{self._event}",
            http_response=AWSResponse("", answer.status, headers, None),
            parsed={},
            model=self._model,
            context=self._context,
        )


class _Connections:
    """Kept-alive connections to one server. Thread-safe: a request has a connection to itself."""

    def __init__(self, make: Callable[[], HTTPConnection], read_seconds: float) -> None:
        self._make = make
        self._read_seconds = read_seconds
        self._process = os.getpid()
        self._idle: deque[HTTPConnection] = deque()

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> _Answer:
        """Sends a request over an idle connection; over a new one where the server had closed that meanwhile."""
        if self._process != os.getpid():  # after a fork the other process uses them too
            self._process, self._idle = os.getpid(), deque()
        try:
            kept = self._idle.pop()
        except IndexError:
            return self._exchange(self._open(), path, body, headers)
        try:
            return self._exchange(kept, path, body, headers)
        except (RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            return self._exchange(self._open(), path, body, headers)

    def _open(self) -> HTTPConnection:
        connection = self._make()
        connection.connect()
        connection.sock.settimeout(self._read_seconds)
        return connection

    def _exchange(self, connection: HTTPConnection, path: str, body: bytes, headers: Mapping[str, str]) -> _Answer:
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            # As they came: items() looks into each for what e-mail may hold.
            told = {name.lower(): text for name, text in response.headers.raw_items()}
            answer = _Answer(response.status, told, response.read())
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return answer


class _Route:
    """The way to a service: its URL, what boto3 sends with every request, and how requests are signed."""

    def __init__(
        self, url: str, headers: Mapping[str, str], sign: Callable[[Any], None], connections: _Connections
    ) -> None:
        self._url = url
        self._path = urlsplit(url).path or "/"
        self._headers = {name: headers[name] for name in _KEPT if name in headers}
        self._target = headers["x-amz-target"].rpartition(".")[0]
        self._sign = sign
        self._connections = connections

    def post(self, operation: str, body: bytes) -> _Answer:
        headers = {**self._headers, "x-amz-target": f"{self._target}.{operation}"}
        request: Any = AWSRequest("POST", self._url, headers, body)
        self._sign(request)
        try:
            answer = self._connections.post(self._path, body, dict(request.headers.raw_items()))
        except ssl.SSLError as error:
            raise SSLError(endpoint_url=self._url, error=error) from error
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=self._url, error=error) from error
        except HTTPException as error:
            raise HTTPClientError(error=error) from error
        told = answer.headers.get(_CHECKSUM)
        if told is not None and told != str(crc32(answer.data)):
            raise HTTPClientError(error="the answer's checksum is not that of its body")
        return answer


def _route_of(request: Any, client: Any) -> _Route | None:
    """The way of a request that boto3 prepared; None where it is not one to be gone here."""
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    media, target = headers.get("content-type", ""), headers.get("x-amz-target", "")
    algorithm, _, signed = headers.get("authorization", "").partition(" ")
    if request.method != "POST" or media not in _MEDIA or algorithm != _ALGORITHM or "." not in target:
        return None
    url, config = str(request.url), client.meta.config
    if urlsplit(url).query or config.proxies or config.client_cert or _utils.get_environ_proxies(url):
        return None
    session: Any = boto3.DEFAULT_SESSION
    credentials: Any = session and session.get_credentials()
    access_key, _, region, service, _ = signed.partition(",")[0].removeprefix("Credential=").split("/")
    if credentials is None or credentials.get_frozen_credentials().access_key != access_key:
        return None

    def sign(unsigned: Any) -> None:
        signer: Any = SigV4Auth(credentials.get_frozen_credentials(), service, region)
        signer.add_auth(unsigned)

    return _Route(url, headers, sign, _connections_to(url, config, session._session.get_config_variable))


def _connections_to(url: str, config: Any, variable: Callable[[str], str | None]) -> _Connections:
    """Connections with boto3's timeouts, and TLS that trusts what boto3 trusts."""
    parts = urlsplit(url)
    host, seconds = parts.hostname or "", float(config.connect_timeout)
    if parts.scheme == "http":
        return _Connections(lambda: HTTPConnection(host, parts.port, timeout=seconds), float(config.read_timeout))
    trusted = variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE") or _httpsession.get_cert_path(True)
    tls = ssl.create_default_context(cafile=trusted)
    return _Connections(
        lambda: HTTPSConnection(host, parts.port, timeout=seconds, context=tls), float(config.read_timeout)
    )


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
