"""Asks a server whether it serves yet, in the fewest bytes its protocol allows.

Each probe takes a port on 127.0.0.1 and returns whether the server there answered as its kind does. None raises.
"""

import http.client
import socket
import struct
from collections.abc import Callable
from typing import Final

HOST: Final = "127.0.0.1"
Probe = Callable[[int], bool]

_PATIENCE: Final = 3.0
"""Seconds for one answer."""


def listens(port: int) -> bool:
    """Whether anything accepts connections there."""
    try:
        socket.create_connection((HOST, port), _PATIENCE).close()
    except OSError:
        return False
    return True


def answers_http(path: str, *statuses: int) -> Probe:
    """A probe that asks for a path.

    Args:
        path: what is asked for.
        statuses: the answers that count; any but a server error where none is given.
    """

    def probe(port: int) -> bool:
        connection = http.client.HTTPConnection(HOST, port, timeout=_PATIENCE)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return status in statuses if statuses else status < http.HTTPStatus.INTERNAL_SERVER_ERROR

    return probe


def answers_redis(port: int) -> bool:
    """``PING`` is answered with ``PONG``."""
    return _exchange(port, b"PING\r\n", 7) == b"+PONG\r\n"


def answers_kafka(port: int) -> bool:
    """ApiVersions, version 0, succeeds (https://kafka.apache.org/protocol#The_Messages_ApiVersions).

    A broker answers on its listener once it has joined the cluster, not before.
    """
    correlation = 0x5EED
    request = struct.pack(">hhih", 18, 0, correlation, -1)
    answer = _exchange(port, struct.pack(">i", len(request)) + request, 10)
    return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (correlation, 0)  # noqa: PLR2004 - as asked for


def answers_http2(port: int) -> bool:
    """A connection preface is answered with a SETTINGS frame (RFC 9113, 3.4): what a gRPC server does."""
    settings = b"\0\0\0\x04\0\0\0\0\0"
    return _exchange(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings, 9)[3:4] == b"\x04"


def answers_postgresql(port: int) -> bool:
    """A startup message is answered with a request to authenticate; while it starts up, with an error."""
    parameters = b"user\0postgres\0database\0postgres\0\0"
    return _exchange(port, struct.pack(">ii", 8 + len(parameters), 3 << 16) + parameters, 1) == b"R"


def _exchange(port: int, request: bytes, size: int) -> bytes:
    """Sends a request and returns the first ``size`` bytes of the answer; fewer where there are no more."""
    answer = b""
    try:
        with socket.create_connection((HOST, port), _PATIENCE) as connection:
            connection.sendall(request)
            while len(answer) < size and (more := connection.recv(size - len(answer))):
                answer += more
    except OSError:
        return b""
    return answer
