"""Sign-in on one's own machine: an issuer made up for one run of the server, whose key nobody else has.

Nothing is open: the server takes tokens as in production, signed by a key that it makes when it starts and that ends
with it. What it prints is one such token.
"""

import ipaddress
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from ...domain.access import CONSOLE_ACT_SCOPE, CONSOLE_READ_SCOPE, READ_ANY_SCOPE

ISSUER: Final = "https://development.invalid"
AUDIENCE: Final = "fan-identity-development"
SERVICE: Final = "development-service"
OPERATOR: Final = "development-operator"
_KID: Final = "development"
_ALGORITHM: Final = "ES256"
_LIFETIME_SECONDS: Final = 12 * 3_600


@dataclass(frozen=True)
class DevelopmentIssuer:
    """An issuer of tokens for one run.

    Attributes:
        settings: to be set for the server: issuer, audience, keys, algorithm.
    """

    settings: Mapping[str, str]
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def started(cls, folder: Path) -> "DevelopmentIssuer":
        """Makes a key; its public part is written to a file of the folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        public: dict[str, Any] = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        path = folder / "jwks.json"
        path.write_text(json.dumps({"keys": [{**public, "kid": _KID, "use": "sig", "alg": _ALGORITHM}]}))
        settings = {
            "token_issuer": ISSUER,
            "token_audience": AUDIENCE,
            "token_jwks": str(path),
            "token_algorithms": _ALGORITHM,
        }
        return cls(settings, key)

    def token_of_service(self) -> str:
        """A token that may read any fan."""
        return self._signed({"sub": SERVICE, "client_id": SERVICE, "scope": READ_ANY_SCOPE})

    def token_of_operator(self, name: str = OPERATOR) -> str:
        """A token that may look at the console, act in it, and read any fan."""
        scope = " ".join((READ_ANY_SCOPE, CONSOLE_READ_SCOPE, CONSOLE_ACT_SCOPE))
        return self._signed({"sub": name, "client_id": name, "scope": scope})

    def token_of_fan(self, global_user_id: str, user_claim: str) -> str:
        """A token of a fan's."""
        return self._signed({"sub": global_user_id, user_claim: global_user_id})

    def _signed(self, claims: Mapping[str, str]) -> str:
        now = int(time.time())
        times = {"iat": now, "exp": now + _LIFETIME_SECONDS}
        return jwt.encode({"iss": ISSUER, "aud": AUDIENCE, **times, **claims}, self._key, _ALGORITHM, {"kid": _KID})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
