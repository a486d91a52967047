"""Getting the issuer's JWK Set: from an https URL, or from a file."""

import http.client
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ...io.errors import UsageError

MAX_DOCUMENT_BYTES: Final = 262_144
"""A document beyond this is refused; a set of 100 keys of 4,096 bits is half of it."""

FETCH_SECONDS: Final = 3.0
"""What connecting may take, and likewise the answer after it."""

_OK: Final = 200


@dataclass(frozen=True)
class KeyDocument:
    """Where the issuer's keys are.

    Attributes:
        place: the URL or path.
    """

    place: str

    def __post_init__(self) -> None:
        """Checks the place.

        Raises:
            UsageError: it is no ``https://`` URL and no path; ``http://`` is taken for this machine only.
        """
        if "://" not in self.place:
            return
        parts = self._parts()
        if parts is None:
            raise UsageError("setting token_jwks: write https://host/path, or a file's path")

    def read(self) -> bytes:
        """The document. Blocks; a URL is asked without following redirects, as it stands in the settings.

        Raises:
            OSError: there is none, it is too large, or the answer is not 200.
            http.client.HTTPException: the answer is no HTTP.
        """
        parts = self._parts()
        if parts is not None:
            return _get(parts)
        with Path(self.place).open("rb") as file:
            return _capped(file.read(MAX_DOCUMENT_BYTES + 1))

    def _parts(self) -> SplitResult | None:
        """The URL's parts; None where it is no URL that may be asked."""
        try:
            parts = urlsplit(self.place)
            host, _ = parts.hostname, parts.port
        except ValueError:
            return None
        plain = self.place.isascii() and self.place.isprintable() and " " not in self.place
        if not host or not plain or parts.username is not None or parts.fragment:
            return None
        return parts if parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(host)) else None


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _get(parts: SplitResult) -> bytes:
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, parts.port, timeout=FETCH_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=FETCH_SECONDS)
    watchdog: threading.Timer | None = None
    try:
        connection.connect()
        # A socket's timeout starts again with each byte: the watchdog bounds the whole answer.
        watchdog = threading.Timer(FETCH_SECONDS, _cut, (connection.sock,))
        watchdog.daemon = True
        watchdog.start()
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        if answer.status != _OK:  # a redirect too: the settings say where the keys are, nobody else does
            raise OSError(f"status {answer.status}")
        return _capped(answer.read(MAX_DOCUMENT_BYTES + 1))
    finally:
        if watchdog is not None:
            watchdog.cancel()
        connection.close()


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _capped(document: bytes) -> bytes:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise OSError(f"larger than {MAX_DOCUMENT_BYTES:,} bytes")
    return document
