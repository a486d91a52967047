"""A webhook's receiver in the process of a test: keeps what it is sent; can hang, refuse, redirect, drip and flood."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

PATIENCE = 60.0


@dataclass(frozen=True)
class Received:
    """A request.

    Attributes:
        at: ``time.monotonic`` when it was there.
        headers: by lower-case name.
        body: as it came.
    """

    at: float
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def action(self) -> tuple[str, str]:
        """What is told of which part."""
        return self.json["part"], self.json["event_action"]


class Receiver:
    """Listens on 127.0.0.1. ``mood`` says how requests are answered.

    Moods: ``ok``; a status as text, ``500``; ``hang``; ``redirect`` to ``location``; ``drip``, a header byte now and
    then, for ever; ``flood``, an endless body; ``interim``, endless ``100 Continue``; ``reset``; ``rubbish``.
    """

    def __init__(self, mood: str = "ok", location: str = "") -> None:
        self.mood = mood
        self.location = location
        self.requests: list[Received] = []
        self.sent_bytes = 0
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/services/T000/B000/very-secret-path"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._listener.close()

    def actions(self) -> list[tuple[str, str]]:
        """What was told of which part, in order."""
        with self._changed:
            return [request.action for request in self.requests]

    def wait_for(self, holds: Callable[[list[Received]], Any], what: str, seconds: float = PATIENCE) -> None:
        """Waits until what was received is as it should be."""
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self.requests), seconds), what

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                head, _, body = self._read_head(connection)
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
                }
                while len(body) < int(headers.get("content-length", "0")):
                    body += connection.recv(65_536)
                mood = self.mood
                with self._changed:
                    self.requests.append(Received(time.monotonic(), headers, body))
                    self._changed.notify_all()
                self._answer(connection, mood)
            except (OSError, EOFError):
                return

    @staticmethod
    def _read_head(connection: socket.socket) -> tuple[str, str, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65_536)
            if not more:
                raise EOFError
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        return head.decode("latin-1"), "", body

    def _answer(self, connection: socket.socket, mood: str) -> None:
        if mood == "hang":
            self._ended.wait(PATIENCE)
        elif mood == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        elif mood == "rubbish":
            connection.sendall(b"\0\xff this is no HTTP \r\n\r\n" * 10)
        elif mood == "redirect":
            connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {self.location}\r\nContent-Length: 0\r\n\r\n".encode())
        elif mood in ("drip", "flood", "interim"):
            start, part, rest = {
                "drip": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a", 0.05),
                "flood": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", b"x" * 65_536, 0.0),
                "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
            }[mood]
            connection.sendall(start)
            while not self._ended.wait(rest):
                self.sent_bytes += connection.send(part)
        else:
            status = "200 OK" if mood == "ok" else f"{mood} Status"
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
