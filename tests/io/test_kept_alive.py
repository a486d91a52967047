"""Kept-alive HTTP connections against servers that behave, and that do not."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from botocore.exceptions import ConnectionClosedError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from fan_identity.io import kept_alive
from fan_identity.io.kept_alive import Answer, Connections

HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"
CLOSE = b""
"""Among the answers of a connection: the server closes it."""


class Server:
    """Answers each request with the next of a connection's answers; connections take their scripts in turn."""

    def __init__(self, scripts: Sequence[Sequence[bytes]]) -> None:
        self.requests: list[tuple[int, bytes]] = []
        self.closed = threading.Event()
        self._scripts = scripts
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for number, script in enumerate(self._scripts):
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(number, connection, script), daemon=True).start()

    def _serve(self, number: int, connection: socket.socket, script: Sequence[bytes]) -> None:
        for answer in script:
            if answer == CLOSE:
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()
                self.closed.set()
                return
            request = b""
            while len(request) < len(HEAD) + 4:
                part = connection.recv(65_536)
                if not part:
                    return
                request += part
            self.requests.append((number, request))
            connection.sendall(answer)

    def close(self) -> None:
        self._listening.close()
        for connection in self._open:
            connection.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(*scripts: Sequence[bytes]) -> Server:
        servers.append(Server(scripts))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def to(server: Server, read_seconds: float = 30) -> Connections:
    return Connections(server.url, 5, read_seconds, pytest.fail)


def answer(body: bytes = b"{}", status: int = 200, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), more, body)


def test_a_connection_is_used_again(serve):
    server = serve([answer(b"one"), answer(b"two"), answer(b"three", 503)])
    connections = to(server)
    answers = [connections.post(HEAD, body) for body in (b"1...", b"2...", b"3...")]
    assert [(one.status, one.body) for one in answers] == [(200, b"one"), (200, b"two"), (503, b"three")]
    assert server.requests == [(0, HEAD + b"1..."), (0, HEAD + b"2..."), (0, HEAD + b"3...")]


def test_each_thread_has_a_connection_to_itself(serve):
    server = serve([answer(b"a")], [answer(b"b"), answer(b"c")])
    connections = to(server)
    first, second = connections._connect(), connections._connect()
    assert connections._exchange(second, HEAD + b"1...").body == b"b"
    assert connections._exchange(first, HEAD + b"2...").body == b"a"
    connections._idle.remove(first)
    assert connections.post(HEAD, b"3...").body == b"c"


def test_headers_have_lower_case_names_and_no_blanks_around(serve):
    server = serve([answer(more=b"X-Amzn-RequestId:  r 1 \r\nEmpty:\r\n")])
    assert to(server).post(HEAD, b"1...").headers == {"content-length": "2", "x-amzn-requestid": "r 1", "empty": ""}


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwhol\r\n1;x=y\r\ne\r\n0\r\nTrailer: t\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
        b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nwhole",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nwhole",
    ],
)
def test_an_answer_in_any_form_ends_where_it_ends(serve, said):
    server = serve([said, answer(b"next")])
    connections = to(server)
    assert connections.post(HEAD, b"1...").body == b"whole"
    assert connections.post(HEAD, b"2...").body == b"next"
    assert [number for number, _ in server.requests] == [0, 0]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 5\r\n\r\nwhole",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
        b"HTTP/1.1 200 OK\r\n\r\nwhole",
    ],
)
def test_a_connection_the_server_does_not_keep_is_not_used_again(serve, said):
    server = serve([said, CLOSE], [answer(b"next")])
    connections = to(server)
    assert connections.post(HEAD, b"1...").body == b"whole"
    assert connections.post(HEAD, b"2...").body == b"next"
    assert [number for number, _ in server.requests] == [0, 1]


def test_no_content_has_no_body(serve):
    server = serve([b"HTTP/1.1 204 No Content\r\n\r\n", answer(b"next")])
    connections = to(server)
    assert connections.post(HEAD, b"1...") == Answer(204, {}, b"")
    assert connections.post(HEAD, b"2...").body == b"next"


def test_a_connection_closed_while_idle_is_replaced(serve):
    server = serve([answer(b"one"), CLOSE], [answer(b"two")])
    connections = to(server)
    connections.post(HEAD, b"1...")
    assert server.closed.wait(60)
    assert connections.post(HEAD, b"2...").body == b"two"
    assert server.requests == [(0, HEAD + b"1..."), (1, HEAD + b"2...")]


def test_a_kept_connection_that_ends_unanswered_is_replaced_and_the_request_goes_out_again(serve, monkeypatch):
    server = serve([answer(b"one"), CLOSE], [answer(b"two")])
    connections = to(server)
    connections.post(HEAD, b"1...")
    assert server.closed.wait(60)
    monkeypatch.setattr(kept_alive, "wait_for_read", lambda *_, **__: False)  # as if it closed a moment later
    assert connections.post(HEAD, b"2...").body == b"two"


def test_a_new_connection_that_ends_unanswered_is_an_error(serve):
    server = serve([CLOSE], [answer(b"never asked")])
    with pytest.raises(ConnectionClosedError):
        to(server).post(HEAD, b"1...")
    assert server.requests == []


def test_a_request_that_was_answered_in_part_does_not_go_out_again(serve):
    server = serve([answer(b"one"), b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE], [answer(b"never asked")])
    connections = to(server)
    connections.post(HEAD, b"1...")
    with pytest.raises(ConnectionClosedError):
        connections.post(HEAD, b"2...")
    assert [number for number, _ in server.requests] == [0, 0]


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nwhole",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nwhole",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nwhole",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nwhole",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nwhole",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwhole\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\n\r\n",
    ],
    ids=lambda said: said[:60],
)
def test_what_is_no_answer_is_an_error_and_the_connection_is_dropped(serve, said):
    server = serve([said, CLOSE], [answer(b"next")])
    connections = to(server)
    with pytest.raises(ConnectionClosedError):
        connections.post(HEAD, b"1...")
    assert connections.post(HEAD, b"2...").body == b"next"


def test_a_server_that_says_nothing_is_given_up(serve):
    server = serve([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwho"])
    with pytest.raises(ReadTimeoutError):
        to(server, read_seconds=0.2).post(HEAD, b"1...")


def test_a_server_that_is_not_there_is_an_error(serve):
    server = serve()
    server.close()
    with pytest.raises(EndpointConnectionError):
        to(server).post(HEAD, b"1...")


def test_a_server_that_does_not_take_the_connection_is_given_up(monkeypatch):
    def too_long(*_):
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", too_long)
    with pytest.raises(ConnectTimeoutError):
        Connections("http://127.0.0.1:1/", 1, 1, pytest.fail).post(HEAD, b"1...")


def test_a_forked_process_makes_connections_of_its_own(serve, monkeypatch):
    server = serve([answer(b"one"), answer(b"parent's")], [answer(b"two")])
    connections = to(server)
    connections.post(HEAD, b"1...")
    parents = list(connections._idle)
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    assert connections.post(HEAD, b"2...").body == b"two"
    assert parents[0]._socket.fileno() != -1, "the parent's is not closed"


@given(body=st.binary(max_size=2_000), cuts=st.lists(st.integers(1, 500), max_size=20))
@settings(max_examples=30, deadline=None)
def test_every_body_comes_whole_in_whatever_chunks(body, cuts):
    chunks, rest = [], body
    for cut in cuts:
        if rest:
            chunks.append(rest[:cut])
            rest = rest[cut:]
    if rest:
        chunks.append(rest)
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    server = Server([[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded, answer(body)]])
    try:
        connections = to(server)
        assert connections.post(HEAD, b"1...").body == body
        assert connections.post(HEAD, b"2...").body == body
    finally:
        server.close()
