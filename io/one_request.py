"""One HTTP request whose answer counts by its status alone: for probes and alerts.

It ends within its deadline whatever the server does: a name that does not resolve, a connection nobody accepts, an
answer that drips or never ends. The body of the answer is not read, and a redirect is not followed: it is an answer.
"""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

from .errors import BackendUnavailableError, UsageError

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def answered_status(
    url: str,
    seconds: float,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    refuse: Callable[[Ip], str | None] = lambda ip: None,
) -> int:
    """The status a server answers a request with.

    Resolving the host's name has no deadline of its own: call it where somebody watches the clock.

    Args:
        url: ``http://…`` or ``https://…``.
        seconds: for all of it, once the name is resolved.
        method: the request's.
        body: the request's, or None.
        headers: the request's, besides Host and Content-Length.
        refuse: says of an address the name resolves to why nothing is sent there; None where it may be.

    Raises:
        UsageError: the URL is none, or ``refuse`` does. The URL is not repeated: it may be a secret.
        BackendUnavailableError: no answer in time; says what kind of failure it was, and nothing of the URL.
    """
    scheme, host, port, target = _parts(url)
    deadline = time.monotonic() + seconds
    try:
        connected = _connected(_resolved(host, port, refuse), port, seconds)
    except OSError as error:
        raise BackendUnavailableError(f"is out of reach ({_kind(error)})") from None
    # Whatever drips: a socket's own timeout begins anew with every byte. The copy outlives the wrapping by TLS.
    watched = connected.dup()
    cut = threading.Timer(max(0.0, deadline - time.monotonic()), _cut, [watched])
    cut.daemon = True
    cut.start()
    try:
        if scheme == "https":
            connected = ssl.create_default_context().wrap_socket(connected, server_hostname=host)
        connection = HTTPConnection(host, port)
        connection.sock = connected
        connection.request(method, target, body, {"Connection": "close", "Accept": "*/*", **(headers or {})})
        status = connection.getresponse().status
        if time.monotonic() >= deadline:  # what was cut off looks like headers that end
            raise TimeoutError
        return status
    except (OSError, HTTPException, ValueError) as error:
        late = time.monotonic() >= deadline
        text = f"gave no answer in {seconds:.3g} s" if late else f"gives no answer ({_kind(error)})"
        raise BackendUnavailableError(text) from None
    finally:
        cut.cancel()
        connected.close()
        watched.close()


def _parts(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port, and path with query."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    plain = url.isascii() and url.isprintable() and " " not in url
    if not plain or not host or parts.scheme not in _DEFAULT_PORTS or parts.username is not None:
        raise UsageError("is no address https://host/path")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], target


def _resolved(host: str, port: int, refuse: Callable[[Ip], str | None]) -> list[Ip]:
    """The addresses to connect to, so that what was checked is what is connected to."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ips = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for ip in ips:
        plain = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped else ip
        if (reason := refuse(plain)) is not None:
            raise UsageError(reason)
    # IPv4 first: a host without a route for IPv6 fails at once, one that drops it hangs.
    return sorted(ips, key=lambda ip: ip.version)


def _connected(ips: Sequence[Ip], port: int, seconds: float) -> socket.socket:
    """A connection to the first address that takes one; each gets its share of what time is left.

    Raises:
        OSError: none does.
    """
    deadline = time.monotonic() + seconds
    failed: OSError = OSError("no address")
    for number, ip in enumerate(ips):
        share = max(0.1, (deadline - time.monotonic()) / (len(ips) - number))
        try:
            connected = socket.create_connection((str(ip), port), timeout=share)
        except OSError as error:
            failed = error
        else:
            connected.settimeout(seconds)
            return connected
    raise failed


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):  # it ended by itself
        connected.shutdown(socket.SHUT_RDWR)


def _kind(error: Exception) -> str:
    """An error's kind: its text may hold the URL."""
    return type(error).__name__
