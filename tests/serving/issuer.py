"""What the tests of tokens share: an issuer with real keys, served by a real HTTP server that counts its requests."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from fan_identity.serving.tokens.rules import TokenRules
from fan_identity.serving.tokens.verifier import TokenVerifier

ISSUER = "https://issuer.example"
AUDIENCE = "web-client"
PATIENCE = 30.0


class Clock:
    """Seconds since 1970, moved on by the test alone."""

    def __init__(self) -> None:
        self.started = time.time()
        self.ahead = 0.0

    def __call__(self) -> float:
        return self.started + self.ahead


class Issuer:
    """Serves a JWK Set, as the test wants it.

    Attributes:
        keys: the set's keys; None answers 503.
        asked: paths of the requests, in order.
        held: while clear, answers wait.
        answer: (status, headers, body) in place of the set.
    """

    def __init__(self) -> None:
        self.keys: list[Mapping[str, Any]] | None = []
        self.asked: list[str] = []
        self.held = threading.Event()
        self.held.set()
        self.arrived = threading.Event()
        self.answer: tuple[int, Mapping[str, str], bytes] | None = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.arrived.set()
                issuer.held.wait(PATIENCE)
                status, headers, body = issuer.answer or (200, {}, json.dumps({"keys": issuer.keys}).encode())
                if issuer.answer is None and issuer.keys is None:
                    status, body = 503, b""
                self.send_response(status)
                for name, text in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                with suppress(OSError):  # who asked went away, as some tests have it
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/.well-known/jwks.json"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.held.set()
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Signer:
    """A private key, and its public half as a JWK."""

    private: Any
    algorithm: str
    kid: str | None = "key-1"
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def jwk(self) -> dict[str, Any]:
        kinds = {"R": RSAAlgorithm, "P": RSAAlgorithm, "E": ECAlgorithm}
        kind = OKPAlgorithm if self.algorithm == "EdDSA" else kinds[self.algorithm[0]]
        jwk = kind.to_jwk(self.private.public_key(), as_dict=True)
        jwk.pop("key_ops", None)
        named = {} if self.kid is None else {"kid": self.kid}
        return {**jwk, "use": "sig", "alg": self.algorithm, **named, **self.more}

    def sign(self, claims: Mapping[str, Any], **headers: Any) -> str:
        named = {} if self.kid is None else {"kid": self.kid}
        return jwt.encode(dict(claims), self.private, self.algorithm, {**named, **headers})


def claims(**changed: Any) -> dict[str, Any]:
    """Claims of a good token; a change to None leaves a claim out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "fan-1", "iat": now, "exp": now + 3_600}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


@pytest.fixture(scope="session")
def rsa_keys() -> list[rsa.RSAPrivateKey]:
    return [rsa.generate_private_key(65_537, 2_048) for _ in range(2)]


@pytest.fixture
def signer(rsa_keys: list[rsa.RSAPrivateKey]) -> Signer:
    return Signer(rsa_keys[0], "RS256")


@pytest.fixture
def next_signer(rsa_keys: list[rsa.RSAPrivateKey]) -> Signer:
    """The key the issuer rotates to."""
    return Signer(rsa_keys[1], "RS256", "key-2")


@pytest.fixture(scope="session")
def signers(rsa_keys: list[rsa.RSAPrivateKey]) -> dict[str, Signer]:
    """A key of each algorithm."""
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    made = [Signer(rsa_keys[0], name, name) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")]
    made += [Signer(ec.generate_private_key(curve), name, name) for name, curve in curves.items()]
    made.append(Signer(ed25519.Ed25519PrivateKey.generate(), "EdDSA", "EdDSA"))
    return {signer.algorithm: signer for signer in made}


@pytest.fixture
def issuer(signer: Signer) -> Iterator[Issuer]:
    made = Issuer()
    made.keys = [signer.jwk]
    yield made
    made.close()


@pytest.fixture
def make_issuer() -> Iterator[Callable[[], Issuer]]:
    """Further issuers, as an attacker may run one."""
    made: list[Issuer] = []

    def make() -> Issuer:
        made.append(Issuer())
        return made[-1]

    yield make
    for issuer in made:
        issuer.close()


@pytest.fixture
def make_signer() -> Callable[..., Signer]:
    return Signer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_verifier(issuer: Issuer, clock: Clock) -> Callable[..., TokenVerifier]:
    """A verifier of the issuer's tokens; keywords change its rules."""

    def make(**changed: Any) -> TokenVerifier:
        rules: dict[str, Any] = {"issuer": ISSUER, "audiences": (AUDIENCE,), "jwks": issuer.url, **changed}
        cached = rules.pop("cached_tokens", 10_000)
        return TokenVerifier(TokenRules(**rules), clock=clock, cached_tokens=cached)

    return make


@pytest.fixture
def verifier(make_verifier: Callable[..., TokenVerifier]) -> TokenVerifier:
    return make_verifier()


@pytest.fixture(name="claims")
def claims_fixture() -> Callable[..., dict[str, Any]]:
    return claims
