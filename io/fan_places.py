"""Every place where a fan can be, from the addresses of the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ..domain.fan_traces import Fan
from .backends import QUEUES, open_cache, open_dead_letters, open_queue, open_table, scheme_of, sqlite_store
from .errors import UsageError
from .fan_stores import Activities, CacheEntry, Letters, Messages, QueueOfServer
from .fan_tables import ImportedValues, ImportExamples, Partition, WaitingEvents, import_versions
from .registry import WORKERS
from .sqlite.activity_log import SqliteActivityLog
from .sqlite.queue import SqliteQueue
from .sqlite.store import SqliteStore

ACCOUNT_FANSCORE_TABLE: Final = "accountFanscoreTable"
DEMAND_TABLE: Final = "demandTable"
OUTBOX_TABLE: Final = "outbox"
"""Tables of the API where one store holds all (``serving.sources``)."""

_VISIBILITY_MS: Final = 60_000


class Place(Protocol):
    """Where a fan can be."""

    @property
    def name(self) -> str:
        """Names the place to people; no two places have the same."""
        ...

    def find(self) -> list[Mapping[str, Any]]:
        """What is there of the fan, as JSON values, in an order that stays.

        Raises:
            BackendUnavailableError: it is out of reach.
        """
        ...

    def erase(self) -> int:
        """Deletes what ``find`` finds, and says how many that were. Doing it again does no harm.

        Raises:
            BackendUnavailableError: it is out of reach; what was deleted stays deleted.
        """
        ...


@dataclass(frozen=True)
class FanStores:
    """The addresses of everything that holds fans; None where there is no such thing.

    Attributes:
        store: stands for each of the others that has no address of its own.
        table: the fan identity table. Likewise ``staging_table``, ``verification_table``,
            ``account_fanscore_table``, ``demand_table`` and ``outbox``.
        arai: where ARAI items are, if not in ``table``.
        cache: the ARM cache.
        dead_letters: the dead letters.
        queues: addresses of queues by setting.
    """

    store: str | None = None
    table: str | None = None
    staging_table: str | None = None
    verification_table: str | None = None
    account_fanscore_table: str | None = None
    demand_table: str | None = None
    outbox: str | None = None
    arai: str | None = None
    cache: str | None = None
    dead_letters: str | None = None
    queues: Mapping[str, str] = field(default_factory=dict[str, str])

    def address(self, setting: str) -> str | None:
        """The address of a setting, else the store's."""
        return getattr(self, setting) or self.store

    def missing(self) -> list[str]:
        """The settings without an address: nothing is looked for there."""
        return [setting for setting in (*_TABLES, "cache", "dead_letters", "outbox") if self.address(setting) is None]

    def sqlite_stores(self) -> list[SqliteStore]:
        """The SQLite files among them, each once."""
        addresses = [self.address(setting) for setting in (*_TABLES, "arai", "cache", "dead_letters", "outbox")]
        stores: dict[str, SqliteStore] = {}
        for text in (*addresses, *self.queues.values()):
            if text is not None and scheme_of(text) == "sqlite":
                store = sqlite_store(text, "store", create=False)
                stores.setdefault(str(store.path.resolve()), store)
        return list(stores.values())


_TABLES: Final[Mapping[str, str]] = {
    "table": WORKERS["scoreUsers"].table_name,
    "staging_table": WORKERS["stagingScoreUsers"].table_name,
    "verification_table": WORKERS["handleEvent"].table_name,
    "account_fanscore_table": ACCOUNT_FANSCORE_TABLE,
    "demand_table": DEMAND_TABLE,
}
"""Tables by setting, with their names where one store holds all."""


def places_of(fan: Fan, stores: FanStores) -> list[Place]:
    """The places where a fan can be, those first from which others are filled.

    Raises:
        UsageError: no address at all, one that is wrong, or an SQLite file that does not exist.
    """
    if len(stores.missing()) == len(_TABLES) + 3 and not stores.queues:
        raise UsageError("where to look? give --store sqlite:///file.db, or the addresses of tables and cache")
    files = stores.sqlite_stores()  # first: what does not exist must not be made
    places: list[Place] = [*_waiting(fan, stores, files)]
    dead_letters = stores.address("dead_letters")
    if dead_letters is not None:
        places.append(Letters("dead letters", open_dead_letters(dead_letters), fan))
    outbox = stores.address("outbox")
    if outbox is not None:
        places.append(WaitingEvents("outbox", open_table(outbox, "outbox", OUTBOX_TABLE), fan))
    places += [Activities(_named("activity log", file, files), SqliteActivityLog(file), fan) for file in files]
    places += _tables(fan, stores)
    cache = stores.address("cache")
    if cache is not None:
        places.append(CacheEntry("ARM cache", open_cache(cache), fan.cache_key))
    return places


def _waiting(fan: Fan, stores: FanStores, files: Sequence[SqliteStore]) -> list[Place]:
    places: list[Place] = [
        Messages(_named(f"queue {name}", file, files), SqliteQueue(file, name), fan)
        for file in files
        for name in file.queue_names()
    ]
    servers = sorted({text for text in stores.queues.values() if scheme_of(text) in QUEUES[1:]})
    for text in servers:
        setting = next(setting for setting, address in stores.queues.items() if address == text)
        queue = open_queue(text, setting.replace("_", "-"), "", _VISIBILITY_MS)
        places.append(QueueOfServer(text.partition("?")[0], queue))
    return places


def _tables(fan: Fan, stores: FanStores) -> list[Place]:
    places: list[Place] = []
    partitions = dict.fromkeys(_TABLES, fan.pk) | {"demand_table": fan.demand_pk}
    partitions["account_fanscore_table"] = fan.member_pk or ""
    for setting, in_store in _TABLES.items():
        address = stores.address(setting)
        if address is None:
            continue
        table = open_table(address, setting.replace("_", "-"), in_store)
        if setting == "table":
            for versions in import_versions(table):
                places.append(ImportExamples(f"examples of {versions.kind} imports", versions, fan))
                places.append(ImportedValues(f"{versions.kind} imports", versions, fan))
        if partitions[setting]:
            places.append(Partition(setting.replace("_", " "), table, partitions[setting]))
    if stores.arai is not None and stores.arai != stores.address("table"):
        places.append(Partition("ARAI table", open_table(stores.arai, "arai", _TABLES["table"]), fan.pk))
    return places


def _named(name: str, file: SqliteStore, files: Sequence[SqliteStore]) -> str:
    return name if len(files) == 1 else f"{name} of {file.path}"
