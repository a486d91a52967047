"""The issuer's keys over time: rotation, outage, floods; counted on a real HTTP server, by a clock the test moves."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fan_identity.io.errors import UnavailableError, UsageError
from fan_identity.serving.tokens import key_document
from fan_identity.serving.tokens.key_document import MAX_DOCUMENT_BYTES, KeyDocument
from fan_identity.serving.tokens.key_set import (
    FIRST_PAUSE_SECONDS,
    FRESH_SECONDS,
    PAUSE_SECONDS,
    RENEW_SECONDS,
    STALE_SECONDS,
)
from fan_identity.serving.tokens.problems import TokenError, TokenProblem
from fan_identity.serving.tokens.verifier import TokenVerifier

PATIENCE = 30.0


def let_in(verifier: TokenVerifier, token: str) -> bool:
    """Whether a token's caller is let in; an outage is raised."""
    try:
        return asyncio.run(verifier.verify(token)).subject == "fan-1"
    except TokenError as error:
        assert error.code is TokenProblem.UNKNOWN_KEY
        return False


def questions_end() -> None:
    """Waits for those in the background, which nobody else does."""
    for thread in threading.enumerate():
        if thread.name == "jwks":
            thread.join(PATIENCE)


@pytest.fixture
def forbid_waiting(monkeypatch) -> Callable[[], None]:
    """From its call on nobody may wait for the issuer: a wait that times out looks like none otherwise."""

    async def waited(*_: object, **__: object) -> None:
        raise AssertionError("somebody waits for the issuer")

    return lambda: monkeypatch.setattr(asyncio, "wait", waited)


@pytest.fixture
def tokens(signer, claims) -> Iterator[str]:
    """Good tokens, none like another, so that none is remembered."""
    return (signer.sign(claims(jti=str(number))) for number in range(1_000_000))


def test_keys_are_asked_for_once(verifier, issuer, tokens):
    assert all(let_in(verifier, next(tokens)) for _ in range(20))
    assert len(issuer.asked) == 1


def test_many_callers_at_once_share_one_question(verifier, issuer, tokens):
    async def together() -> list[Any]:
        issuer.held.clear()
        waiting = [asyncio.create_task(verifier.verify(next(tokens))) for _ in range(50)]
        await asyncio.to_thread(issuer.arrived.wait, PATIENCE)
        issuer.held.set()
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(together())) == 50
    assert len(issuer.asked) == 1


def test_a_caller_who_gives_up_does_not_end_the_question_for_the_others(verifier, issuer, tokens):
    async def together() -> Any:
        issuer.held.clear()
        first = asyncio.create_task(verifier.verify(next(tokens)))
        second = asyncio.create_task(verifier.verify(next(tokens)))
        await asyncio.to_thread(issuer.arrived.wait, PATIENCE)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        issuer.held.set()
        return await second

    assert asyncio.run(together()).subject == "fan-1"
    assert len(issuer.asked) == 1


def test_a_flood_of_unknown_kids_asks_at_most_once_in_30_seconds(verifier, issuer, signer, clock, claims):
    assert PAUSE_SECONDS >= 30
    for number in range(300):  # one and a half a second of the clock, for 200 seconds
        assert not let_in(verifier, signer.sign(claims(), kid=f"made-up-{number}"))
        clock.ahead += 200 / 300
    assert 2 <= len(issuer.asked) <= 1 + 200 / PAUSE_SECONDS


def test_a_flood_at_one_moment_asks_once(verifier, issuer, signer, tokens, clock, claims):
    assert let_in(verifier, next(tokens))
    clock.ahead += PAUSE_SECONDS

    async def flood() -> list[Any]:
        calls = [verifier.verify(signer.sign(claims(), kid=f"made-up-{number}")) for number in range(200)]
        return await asyncio.gather(*calls, return_exceptions=True)

    assert {str(error) for error in asyncio.run(flood())} == {"UNKNOWN_KEY"}
    assert len(issuer.asked) == 2


def test_known_kids_do_not_wait_for_a_question_that_an_unknown_one_caused(
    verifier, issuer, signer, tokens, clock, claims
):
    assert let_in(verifier, next(tokens))
    clock.ahead += PAUSE_SECONDS
    issuer.held.clear()
    issuer.arrived.clear()

    async def meanwhile() -> bool:
        unknown = asyncio.create_task(verifier.verify(signer.sign(claims(), kid="made-up")))
        assert await asyncio.to_thread(issuer.arrived.wait, PATIENCE)
        # The issuer answers only after this: who waited for it would wait in vain.
        good = await verifier.verify(next(tokens))
        assert not unknown.done()
        issuer.held.set()
        with pytest.raises(TokenError):
            await unknown
        return good.subject == "fan-1"

    assert asyncio.run(meanwhile())


def test_rotation_a_new_key_is_found_and_a_withdrawn_one_is_not_taken_any_more(
    verifier, issuer, signer, next_signer, clock, claims
):
    old, new = signer.sign(claims()), next_signer.sign(claims())
    assert let_in(verifier, old)
    issuer.keys = [signer.jwk, next_signer.jwk]
    assert not let_in(verifier, new)  # asked a moment ago
    clock.ahead += PAUSE_SECONDS
    assert let_in(verifier, new)
    assert verifier.cached(old) is not None  # its key is still there
    issuer.keys = [next_signer.jwk]
    assert not let_in(verifier, signer.sign(claims(), kid="made-up"))
    assert verifier.cached(old) is not None
    clock.ahead += PAUSE_SECONDS
    assert not let_in(verifier, signer.sign(claims(), kid="made-up"))
    assert verifier.cached(old) is None, "verified with a key that is withdrawn"
    assert not let_in(verifier, old)
    assert let_in(verifier, new)


def test_rotation_of_what_a_kid_names(verifier, issuer, signer, next_signer, clock, claims):
    """An issuer that uses a kid again for another key."""
    old = signer.sign(claims())
    assert let_in(verifier, old)
    issuer.keys = [{**next_signer.jwk, "kid": "key-1"}]
    clock.ahead += FRESH_SECONDS
    with pytest.raises(TokenError) as refused:
        asyncio.run(verifier.verify(old))
    assert refused.value.code is TokenProblem.BAD_SIGNATURE
    next_signer.kid = "key-1"
    assert let_in(verifier, next_signer.sign(claims()))


def test_an_issuer_that_withdraws_all_keys_is_believed(verifier, issuer, tokens, clock):
    assert let_in(verifier, next(tokens))
    issuer.keys = []
    clock.ahead += FRESH_SECONDS
    assert not let_in(verifier, next(tokens))


def test_keys_are_renewed_in_the_background_before_they_age(verifier, issuer, tokens, clock, forbid_waiting):
    assert let_in(verifier, next(tokens))
    clock.ahead += RENEW_SECONDS
    issuer.held.clear()
    forbid_waiting()
    assert all(let_in(verifier, next(tokens)) for _ in range(5))
    issuer.held.set()
    questions_end()
    clock.ahead += FRESH_SECONDS - RENEW_SECONDS - 1
    assert let_in(verifier, next(tokens))
    questions_end()
    assert len(issuer.asked) == 2


def test_outage_known_keys_are_used_on_up_to_the_stated_age(verifier, issuer, tokens, clock):
    assert let_in(verifier, next(tokens))
    issuer.keys = None
    for _ in range(int(STALE_SECONDS // 100) - 1):
        clock.ahead += 100
        assert let_in(verifier, next(tokens))
        questions_end()
    assert len(issuer.asked) > 30, "it is asked again and again"
    clock.ahead += 100
    with pytest.raises(UnavailableError, match="jwks"):
        let_in(verifier, next(tokens))


def test_outage_nobody_waits_for_an_issuer_that_is_known_to_be_away(verifier, issuer, tokens, clock, forbid_waiting):
    assert let_in(verifier, next(tokens))
    issuer.keys = None
    clock.ahead += FRESH_SECONDS
    assert let_in(verifier, next(tokens))  # waited for the answer, which was 503
    clock.ahead += PAUSE_SECONDS
    issuer.held.clear()
    forbid_waiting()
    assert all(let_in(verifier, next(tokens)) for _ in range(5))


def test_outage_from_the_start_is_an_outage_and_ends_with_it(verifier, issuer, tokens, clock):
    keys, issuer.keys = issuer.keys, None
    for _ in range(10):
        with pytest.raises(UnavailableError, match="jwks"):
            let_in(verifier, next(tokens))
    assert len(issuer.asked) == 1
    issuer.keys = keys
    clock.ahead += PAUSE_SECONDS
    assert let_in(verifier, next(tokens))


def test_outage_what_was_verified_is_remembered_no_longer_than_its_key(verifier, issuer, signer, tokens, clock, claims):
    assert let_in(verifier, next(tokens))
    issuer.keys = None
    clock.ahead += STALE_SECONDS - 1
    token = signer.sign(claims(exp=int(clock() + 100_000)))
    assert let_in(verifier, token)
    assert verifier.cached(token) is not None
    clock.ahead += 2
    assert verifier.cached(token) is None


def test_a_clock_set_back_does_not_keep_keys_for_longer(verifier, issuer, tokens, clock):
    clock.ahead = 0
    assert let_in(verifier, next(tokens))
    clock.ahead = -1_000
    assert let_in(verifier, next(tokens))
    assert len(issuer.asked) == 2


def test_readiness_asks_for_keys_before_the_first_request(verifier, issuer, tokens):
    asyncio.run(verifier.check())
    assert let_in(verifier, next(tokens))
    assert len(issuer.asked) == 1


def test_readiness_is_an_outage_while_there_are_no_keys_and_ends_with_it(verifier, issuer, clock):
    keys, issuer.keys = issuer.keys, None
    for _ in range(3):
        with pytest.raises(UnavailableError, match="jwks"):
            asyncio.run(verifier.check())
    issuer.keys = keys
    clock.ahead += FIRST_PAUSE_SECONDS
    asyncio.run(verifier.check())
    assert len(issuer.asked) == 2


def test_readiness_does_not_wait_for_an_issuer_that_hangs_while_keys_are_there(verifier, issuer, clock, forbid_waiting):
    asyncio.run(verifier.check())
    issuer.held.clear()
    clock.ahead += FRESH_SECONDS
    forbid_waiting()
    asyncio.run(verifier.check())


def test_readiness_ends_when_keys_are_too_old(verifier, issuer, clock):
    asyncio.run(verifier.check())
    issuer.keys = None
    clock.ahead += STALE_SECONDS
    with pytest.raises(UnavailableError):
        asyncio.run(verifier.check())


# What the issuer answers


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, {}, b'{"keys":[]}'),
        (404, {}, b'{"keys":[]}'),
        (200, {}, b""),
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b'{"keys":{}}'),
        (200, {}, b'{"keys":[],"keys":[]}'),
        (200, {}, b"\xff\xfe"),
        (200, {"Content-Length": "1000"}, b'{"keys":['),
        (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08"),
    ],
    ids=str,
)
def test_an_answer_that_is_no_jwk_set_changes_nothing(verifier, issuer, tokens, clock, status, headers, body):
    assert let_in(verifier, next(tokens))
    issuer.answer = (status, headers, body)
    clock.ahead += FRESH_SECONDS
    assert let_in(verifier, next(tokens))
    assert len(issuer.asked) == 2


@pytest.mark.parametrize("junk", [None, 1, "x", [], {}, {"kty": "RSA"}, {"kty": ["RSA"]}, {"kty": "EC", "crv": {}}])
def test_entries_that_are_no_keys_are_left_out(make_verifier, issuer, tokens, junk):
    issuer.keys.insert(0, junk)
    assert let_in(make_verifier(), next(tokens))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(verifier, issuer, make_issuer, tokens, status, signer):
    elsewhere = make_issuer()
    elsewhere.keys = [signer.jwk]
    issuer.answer = (status, {"Location": elsewhere.url}, b"")
    with pytest.raises(UnavailableError):
        let_in(verifier, next(tokens))
    assert (len(issuer.asked), elsewhere.asked) == (1, [])


def test_an_answer_beyond_the_cap_is_refused(verifier, issuer, tokens):
    good = json.dumps({"keys": issuer.keys}).encode()
    issuer.answer = (200, {}, good + b" " * (MAX_DOCUMENT_BYTES + 1 - len(good)))
    with pytest.raises(UnavailableError):
        let_in(verifier, next(tokens))


def test_an_answer_at_the_cap_is_taken(verifier, issuer, tokens):
    good = json.dumps({"keys": issuer.keys}).encode()
    issuer.answer = (200, {}, good + b" " * (MAX_DOCUMENT_BYTES - len(good)))
    assert let_in(verifier, next(tokens))


@pytest.fixture
def trickle() -> Iterator[Callable[[bytes], str]]:
    """A server that sends its beginning, then a byte at a time until it is cut off."""
    ended: list[threading.Event] = []
    sockets: list[socket.socket] = []

    def serve(begin: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)
        end = threading.Event()
        ended.append(end)

        def run() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    connection.sendall(begin)
                    while not end.wait(0.01):
                        connection.sendall(b"x")
                except OSError:
                    return

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/jwks"

    yield serve
    for end in ended:
        end.set()
    for listening in sockets:
        listening.close()


@pytest.mark.parametrize(
    "begin", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b""]
)
def test_an_answer_that_never_ends_is_cut_off(trickle, monkeypatch, begin):
    monkeypatch.setattr(key_document, "FETCH_SECONDS", 0.2)
    try:
        document = KeyDocument(trickle(begin)).read()
    except (OSError, key_document.http.client.HTTPException):
        return
    assert len(document) < 10_000


# Where the keys are


def test_keys_from_a_file_are_read_again(make_verifier, signer, next_signer, clock, claims, tmp_path):
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [signer.jwk]}))
    verifier = make_verifier(jwks=str(file))
    assert let_in(verifier, signer.sign(claims()))
    file.write_text(json.dumps({"keys": [next_signer.jwk]}))
    clock.ahead += PAUSE_SECONDS
    assert let_in(verifier, next_signer.sign(claims()))
    file.unlink()
    clock.ahead += FRESH_SECONDS
    assert let_in(verifier, next_signer.sign(claims(jti="2")))


def test_a_file_beyond_the_cap_is_refused(tmp_path):
    file = tmp_path / "jwks.json"
    file.write_bytes(b" " * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(OSError, match="larger"):
        KeyDocument(str(file)).read()


@pytest.mark.parametrize(
    "place",
    [
        "http://issuer.example/jwks.json",
        "http://127.0.0.1.evil.example/jwks",
        "ftp://issuer.example/jwks",
        "file:///etc/passwd",
        "https://",
        "https://user:secret@issuer.example/jwks",
        "https://issuer.example/a b",
        "https://issuer.example/\r\nX: y",
        "https://issuer.example:port/",
        "https://issuer.example/#x",
        "https://[::1/",
    ],
)
def test_places_that_are_refused(place):
    with pytest.raises(UsageError, match="token_jwks") as refused:
        KeyDocument(place)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "place",
    ["https://issuer.example/jwks?v=1", "http://127.0.0.1:80/x", "http://[::1]/", "http://localhost/x", "keys.json"],
)
def test_places_that_are_taken(place):
    assert KeyDocument(place).place == place
