"""Kept-alive HTTP connections for many small POST requests; a request costs a third of the CPU an HTTP library takes.

Only what AWS's JSON services need of HTTP/1.1 (RFC 9112): a POST with a body, an answer with ``Content-Length``, in
chunks or up to the connection's end. Failures are botocore's exceptions, as boto3 would raise them.
"""

import os
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import msgspec
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util.wait import wait_for_read

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?\r?\n")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?\r?\n")
_END: Final = (b"\r\n", b"\n")
_LONGEST_LINE: Final = 65_536
_MOST_HEADERS: Final = 200
_BUFFER_BYTES: Final = 65_536
_FINAL: Final = 200  # statuses below are interim
_NO_BODY: Final = frozenset({204, 304})


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A server's answer; the headers' names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connections:
    """Connections to one server, shared by threads; each request has one to itself.

    A forked process makes its own.

    Args:
        url: ``https://host:port``; its path is left to ``post``.
        connect_seconds: to connect, and for TLS's handshake.
        read_seconds: to wait for each part of an answer.
        context: of TLS; called once where the URL is of TLS.
    """

    def __init__(
        self, url: str, connect_seconds: float, read_seconds: float, context: Callable[[], ssl.SSLContext]
    ) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._url = url
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._context = context() if secure else None
        self._idle: deque[_Connection] = deque()
        self._owner = os.getpid()
        self._forking = threading.Lock()

    def post(self, head: bytes, body: bytes) -> Answer:
        """Sends a request and reads its answer.

        A connection that was kept may have been closed by the server meanwhile: where it ends before any part of an
        answer came, the request goes out once more on a new one.

        Args:
            head: request line and headers with the empty line after them, ``Host`` and ``Content-Length`` among them.
            body: the request's body.

        Raises:
            EndpointConnectionError, ConnectTimeoutError, SSLError: there is no connection.
            ConnectionClosedError, ReadTimeoutError: there is no answer, or none of HTTP.
        """
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, head + body)
            except ConnectionClosedError:
                if kept.answered:
                    raise
        return self._exchange(self._connect(), head + body)

    def _take(self) -> "_Connection | None":
        if self._owner != os.getpid():
            with self._forking:
                if self._owner != os.getpid():
                    self._idle = deque()  # the parent goes on using its sockets
                    self._owner = os.getpid()
        while True:
            try:
                connection = self._idle.pop()  # the one used last is the least likely to have been closed
            except IndexError:
                return None
            if not connection.closed_by_server():
                return connection
            connection.close()

    def _exchange(self, connection: "_Connection", request: bytes) -> Answer:
        kept = False
        try:
            answer, kept = connection.exchange(request)
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except (OSError, ValueError) as error:
            raise ConnectionClosedError(endpoint_url=self._url, error=error) from error
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()
        return answer

    def _connect(self) -> "_Connection":
        try:
            plain = socket.create_connection((self._host, self._port), self._connect_seconds)
            try:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                made = plain if self._context is None else self._context.wrap_socket(plain, server_hostname=self._host)
            except BaseException:
                plain.close()
                raise
        except TimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=self._url, error=error) from error
        except ssl.SSLError as error:
            raise SSLError(endpoint_url=self._url, error=error) from error
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=self._url, error=error) from error
        made.settimeout(self._read_seconds)
        return _Connection(made)


class _Connection:
    """One connection.

    Attributes:
        answered: a part of the last request's answer came.
    """

    def __init__(self, made: socket.socket) -> None:
        self.answered = False
        self._socket = made
        self._file = made.makefile("rb", _BUFFER_BYTES)

    def closed_by_server(self) -> bool:
        """Whether it cannot be used: nothing was asked, so what can be read is the end, or nothing of ours."""
        return wait_for_read(self._socket, timeout=0)

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._socket.close()

    def exchange(self, request: bytes) -> tuple[Answer, bool]:
        """Sends a request; the answer, and whether the connection can be kept.

        Raises:
            OSError: the connection failed; TimeoutError: nothing came for too long.
            ValueError: what came is no answer of HTTP.
        """
        self.answered = False
        self._socket.sendall(request)
        status = 0
        version = b"0"
        headers: dict[str, str] = {}
        while status < _FINAL:
            line = self._line()
            match = _STATUS_LINE.fullmatch(line)
            if match is None:
                raise ValueError("the answer is not HTTP")
            version, status = match[1], int(match[2])
            headers = self._headers()
        kept = version == b"1" and headers.get("connection", "").lower() != "close"
        body, ended = self._body(status, headers)
        return Answer(status, headers, body), kept and not ended

    def _line(self) -> bytes:
        line = self._file.readline(_LONGEST_LINE)
        if line:
            self.answered = True
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the connection ended, or a header has no end")
        return line

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        readline = self._file.readline
        for _ in range(_MOST_HEADERS):
            line = readline(_LONGEST_LINE)
            if line in _END:
                return headers
            if line[-1:] != b"\n":
                raise ConnectionResetError("the connection ended within the headers, or one has no end")
            name, colon, text = line.decode("latin-1").partition(":")
            if not colon or name != name.strip():
                raise ValueError("a header is malformed")
            headers[name.lower()] = text.strip()
        raise ValueError("there are too many headers")

    def _body(self, status: int, headers: Mapping[str, str]) -> tuple[bytes, bool]:
        """The body, and whether it took the connection's end to know where it ends."""
        if status in _NO_BODY:
            return b"", False
        coding = headers.get("transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked":
                raise ValueError("an unknown transfer coding")
            return self._chunks(), False
        length = headers.get("content-length")
        if length is None:
            return self._file.read(), True
        if not (length.isascii() and length.isdigit()):
            raise ValueError("the length is no number")
        return self._exactly(int(length)), False

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while True:
            match = _CHUNK_SIZE.fullmatch(self._line())
            if match is None:
                raise ValueError("a chunk has no size")
            size = int(match[1], 16)
            if not size:
                self._headers()  # trailers
                return b"".join(parts)
            parts.append(self._exactly(size))
            if self._line() not in _END:
                raise ValueError("a chunk has another size than it says")

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise ConnectionResetError("the connection ended within an answer")
        return data
