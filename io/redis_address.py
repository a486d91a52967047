"""Addresses of Redis servers, as writers and readers of the ARM cache share them. Imports no client."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from .addresses import Address, check_options
from .errors import UsageError

PASSWORD_VARIABLE: Final = "FAN_IDENTITY_REDIS_PASSWORD"  # noqa: S105 - its name, not a password
"""The environment variable with the password; it goes before one in the address."""

SCHEMES: Final = frozenset({"redis", "rediss", "redis-cluster", "rediss-cluster"})
"""What addresses of Redis begin with; a double s is TLS."""

_DEFAULT_PORT: Final = 6_379
_DB_DIGITS: Final = 5


@dataclass(frozen=True)
class RedisServer:
    """Where a server is; printed without credentials.

    Attributes:
        scheme: of ``SCHEMES``.
        host: its name or address.
        port: its port.
        db: its database; 0 in a cluster.
        user: to sign in as, or None.
        password: of the address, or None.
        ca: a file of certificates that TLS trusts in place of the system's, or None.
    """

    scheme: str
    host: str
    port: int
    db: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str | None = None

    @property
    def cluster(self) -> bool:
        """Whether it is a cluster's node."""
        return self.scheme.endswith("-cluster")

    @property
    def tls(self) -> bool:
        """Whether connections to it are encrypted."""
        return self.scheme.startswith("rediss")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}" + ("" if self.cluster else f"/{self.db}")


def redis_server_of(address: Address, setting: str) -> RedisServer:
    """Reads ``scheme://[user[:password]@]host[:port][/db]``, with option ``ca``.

    Args:
        address: the address.
        setting: where it came from, for errors.

    Raises:
        UsageError: it is no such address.
    """
    check_options(address, setting, {"ca"})
    usage = UsageError(
        f"--{setting}: write {address.scheme}://host:port" + ("" if "cluster" in address.scheme else "/0")
    )
    if address.scheme not in SCHEMES:
        raise usage
    try:
        parts = urlsplit(f"//{address.target}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise usage from None
    db = parts.path.strip("/")
    if not host or parts.fragment or not (not db or (db.isascii() and db.isdigit() and len(db) <= _DB_DIGITS)):
        raise usage
    server = RedisServer(
        scheme=address.scheme,
        host=host,
        port=port or _DEFAULT_PORT,
        db=int(db or 0),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        ca=address.options.get("ca"),
    )
    if server.cluster and server.db:
        raise UsageError(f"--{setting}: a cluster has database 0 only; write {server}")
    if server.ca is not None and not Path(server.ca).is_file():
        raise UsageError(f"--{setting}: option ca names no file")
    return server
