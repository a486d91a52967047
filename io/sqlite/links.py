"""What an SQLite store knows of fans that share a device or an address: hashes, kept for profiles."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from ...domain.keys import user_token
from ...domain.linking import KINDS, LinkKind
from ..link_files import BATCH_ROWS
from ..link_rows import Links
from .store import SqliteStore

_SELECT: Final = "SELECT DISTINCT user, device, address FROM activities WHERE device != 0 OR address != 0"


class SqliteLinks:
    """The devices and addresses of a store's activities. Pickles as the store's path.

    They are hashes, and of whole addresses, not of blocks: they link fans of this store with each other, and with what
    files say only through the fans.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def about_rows(self) -> int:
        """How many rows there are at most.

        Raises:
            BackendUnavailableError: the store cannot be read.
        """
        with self._store.translated_errors():
            return int(self._store.connection.execute("SELECT count(*) FROM activities").fetchone()[0])

    def read(self, batch_rows: int = BATCH_ROWS) -> Iterator[Links]:
        """Reads all of them. Fans whose id is so long that the store has only its hash are left out and counted.

        Raises:
            BackendUnavailableError: the store cannot be read.
        """
        with self._store.translated_errors():
            rows = self._store.connection.execute(_SELECT)
            while batch := list(islice(rows, batch_rows)):
                yield _links(batch)


def _links(rows: list[tuple[str, int, int]]) -> Links:
    named = [row for row in rows if user_token(row[0]) == row[0]]
    values: dict[LinkKind, list[str | None]] = {kind: [None] * len(named) for kind in KINDS}
    values[LinkKind.DEVICE] = [_hashed(device) for _, device, _ in named]
    values[LinkKind.IP_BLOCK] = [_hashed(address) for _, _, address in named]
    rejected: Counter[str] = Counter()
    if len(named) < len(rows):
        rejected["hashed_user"] = len(rows) - len(named)
    return Links([user for user, _, _ in named], values, rejected, comparable=True)


def _hashed(value: Any) -> str | None:
    return f"hash:{value}" if value else None
