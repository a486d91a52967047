"""From the ARM cache's address to what reads it on an event loop. Imports only what the address needs."""

from collections.abc import Sequence
from typing import Protocol

from .addresses import parse_address
from .redis_address import SCHEMES, redis_server_of


class ArmReads(Protocol):
    """Reads of the ARM cache.

    Every method raises UsageError where a setting is wrong and BackendUnavailableError where there is no answer in
    time.
    """

    async def get(self, key: str) -> bytes | None:
        """The entry of a key as it is stored, or None where there is none."""
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The entries of keys, in their order."""
        ...

    async def check(self) -> None:
        """Asks for an answer."""
        ...

    async def close(self) -> None:
        """Ends connections."""
        ...


def open_arm_reads(text: str, setting: str, deadline_seconds: float) -> ArmReads:
    """What reads the cache of an address: ``sqlite:///file.db``, ``redis://host/0`` and its TLS and cluster forms.

    Args:
        text: the address.
        setting: where it came from, for errors.
        deadline_seconds: of a lookup.

    Raises:
        UsageError: the address is none of a cache.
    """
    address = parse_address(text, setting)
    if address.scheme not in SCHEMES:
        from .backends import sqlite_store  # noqa: PLC0415
        from .sqlite.arm_reads import SqliteArmReads  # noqa: PLC0415

        return SqliteArmReads(sqlite_store(text, setting), deadline_seconds)
    server = redis_server_of(address, setting)
    if server.cluster:
        from .redis_cluster_lookup import RedisClusterLookup  # noqa: PLC0415

        return RedisClusterLookup(server, setting, deadline_seconds)
    from .redis_lookup import RedisLookup  # noqa: PLC0415

    return RedisLookup(server, setting, deadline_seconds)
