"""What the servers under load need: a Redis of their own with fans in it, an issuer's keys, free ports, CPU times."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import redis
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from ...domain.keys import arm_cache_key

ISSUER = "https://issuer.invalid"
AUDIENCE = "bench"
_PATIENCE = 60.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fan(number: int) -> str:
    """A fan's id."""
    return f"fan-{number:06d}"


@contextmanager
def redis_with_fans(fans: int) -> Generator[int]:
    """A private Redis with the ARM scores of fans; its port."""
    if shutil.which("redis-server") is None:
        raise SystemExit("the benchmark needs redis-server: apt-get install redis-server")
    port = free_port()
    with running("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", port=port):
        client = redis.Redis(port=port)
        client.mset({arm_cache_key(fan(number)): _entry(number) for number in range(fans)})
        yield port


def _entry(number: int) -> str:
    return json.dumps(
        {
            "global_user_id": fan(number),
            "arm_risk": number % 5 + 1,
            "timestamp": 1_718_355_600_000,
            "score_date": "2024-06-14",
            "modelVersion": "embedded-scorecard-1",
            "reasons": ["ACTIVE_RATE", "SEARCH_SHARE", "BURST", "ADDRESSES", "EVENTS"],
            "version": f"{number:015d}#a-{number}",
        }
    )


class Issuer:
    """Signs tokens with RS256; its keys are in a file."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(65_537, 2_048)
        public: dict[str, Any] = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self._jwks = folder / "jwks.json"
        self._jwks.write_text(json.dumps({"keys": [{**public, "kid": "k", "use": "sig", "alg": "RS256"}]}))

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a server that takes its tokens."""
        return {
            "FAN_IDENTITY_TOKEN_ISSUER": ISSUER,
            "FAN_IDENTITY_TOKEN_AUDIENCE": AUDIENCE,
            "FAN_IDENTITY_TOKEN_JWKS": str(self._jwks),
        }

    def token(self, subject: str) -> str:
        """A fan's token, good for an hour."""
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": int(time.time()) + 3_600}
        return jwt.encode(claims, self._key, "RS256", {"kid": "k"})


@contextmanager
def running(*command: str, port: int, settings: dict[str, str] | None = None) -> Generator[int]:
    """A server for the time of a ``with`` block; its process id."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("FAN_IDENTITY_")}
    with subprocess.Popen(
        command, env={**own, **(settings or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            deadline = time.monotonic() + _PATIENCE
            while not _accepts(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} does not start")
                time.sleep(0.02)
            yield process.pid
        finally:
            process.terminate()


def python(module: str, *arguments: object) -> Sequence[str]:
    """The command of a module of this package."""
    return (sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments))


def cpu_seconds(pid: int) -> float:
    """CPU time a process used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
