"""From addresses to backends: what stands behind ``sqlite:///…`` and the model's address."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl

from ..domain.scorecard import ScorecardError
from .errors import UsageError
from .file_ranges import local_path
from .model import EmbeddedModel
from .ports import AraiSource, ArmCache, DeadLetterStore, MessageQueue, PositionStore, ScoringModel, Table
from .settings import Settings
from .sqlite.activity_log import SqliteActivityLog
from .sqlite.dead_letters import SqliteDeadLetters, SqlitePositions
from .sqlite.queue import SqliteQueue
from .sqlite.store import SqliteStore
from .sqlite.table import SqliteArmCache, SqliteTable
from .store_lock import store_lock

ACCOUNT_ACTIVITY_QUEUE = "accountActivityQueue"
FAN_IDENTITY_TABLE = "fanIdentityTable"


@dataclass(frozen=True)
class Address:
    """An address ``scheme://target?option=value``.

    Attributes:
        scheme: in lower case.
        target: what follows ``://`` up to the options.
        options: by name.
    """

    scheme: str
    target: str
    options: dict[str, str] = field(default_factory=dict[str, str])


def parse_address(text: str, setting: str) -> Address:
    """Splits an address.

    Args:
        text: the address.
        setting: where it came from, for the error.

    Raises:
        UsageError: it is none.
    """
    scheme, separator, rest = text.partition("://")
    if not separator or not scheme.isalnum():
        raise UsageError(f"--{setting}: not an address; write for example sqlite:///fans.db")
    target, _, query = rest.partition("?")
    try:
        options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    except ValueError:
        raise UsageError(f"--{setting}: options are written ?name=value&name=value") from None
    return Address(scheme.lower(), target, options)


def sqlite_store(text: str, setting: str, *, create: bool = True) -> SqliteStore:
    """The store of an address ``sqlite:///file`` (relative) or ``sqlite:////file`` (absolute), as SQLAlchemy has it.

    Raises:
        UsageError: another scheme, or no file; or ``create`` is False and the file does not exist.
    """
    address = parse_address(text, setting)
    if address.scheme != "sqlite":
        raise UsageError(f"--{setting}: {address.scheme}:// is not supported here; use sqlite:///file.db")
    if len(address.target) < len("/f") or not address.target.startswith("/"):
        raise UsageError(
            f"--{setting}: write sqlite:///file.db for a file in this folder or sqlite:////folder/file.db "
            "for an absolute path"
        )
    return _shared_store(Path(address.target[1:]), create)


@cache
def _shared_store(path: Path, create: bool) -> SqliteStore:
    """One store object a process, so that all parts on one file share its connections."""
    return SqliteStore(path, create=create)


@dataclass(frozen=True)
class Backends:
    """The addresses of a run; each ``open_…`` makes the client behind one. Pickles as text, holds no connection.

    Attributes:
        queue: the queue; option ``queue`` names it (default accountActivityQueue).
        table: the score table; option ``table`` names it (default fanIdentityTable).
        cache: the ARM cache, or None to write none.
        dead_letters: where dead letters go.
        arai: the profiles' source.
        positions: where positions in growing files are remembered.
        model: ``file:///scorecard.json``, or None for the packaged model.
        visibility_timeout_ms: of received messages.
    """

    queue: str
    table: str
    cache: str | None
    dead_letters: str
    arai: str
    positions: str
    model: str | None = None
    visibility_timeout_ms: int = 60_000

    @classmethod
    def of(cls, settings: Settings) -> "Backends":
        """The backends settings name; whatever is not named is in the store.

        Raises:
            UsageError: a part has neither an address of its own nor a store.
        """
        return cls(
            queue=_address(settings, "queue"),
            table=_address(settings, "table"),
            cache=_address(settings, "cache"),
            dead_letters=_address(settings, "dead_letters"),
            arai=_address(settings, "arai"),
            positions=settings.store or _address(settings, "queue"),
            model=settings.model,
            visibility_timeout_ms=int(settings.visibility_timeout.total_seconds() * 1_000),
        )

    def shared_lock(self) -> AbstractContextManager[None]:
        """Held by a worker that may run beside others on the queue's store, and not beside a run that works alone."""
        return self._lock(exclusive=False)

    def exclusive_lock(self) -> AbstractContextManager[None]:
        """Held by a run that works alone on the queue's store."""
        return self._lock(exclusive=True)

    def _lock(self, *, exclusive: bool) -> AbstractContextManager[None]:
        store = sqlite_store(self.queue, "queue")
        # Opened first: what is no store gets an error that says so, and no lock file beside it.
        store.connection  # noqa: B018
        return store_lock(store.path, exclusive=exclusive)

    def open_queue(self) -> MessageQueue:
        """The queue."""
        return self.open_sqlite_queue()

    def open_sqlite_queue(self) -> SqliteQueue:
        """The queue, as the class that can also release what a killed process held."""
        name = parse_address(self.queue, "queue").options.get("queue", ACCOUNT_ACTIVITY_QUEUE)
        store = sqlite_store(self.queue, "queue")
        return SqliteQueue(store, name, visibility_timeout_ms=self.visibility_timeout_ms)

    def open_table(self) -> Table:
        """The score table."""
        return self.open_sqlite_table()

    def open_sqlite_table(self) -> SqliteTable:
        """The score table, as the class that can also be read from end to end."""
        name = parse_address(self.table, "table").options.get("table", FAN_IDENTITY_TABLE)
        return SqliteTable(sqlite_store(self.table, "table"), name)

    def open_cache(self) -> ArmCache | None:
        """The ARM cache, or None where the worker writes none."""
        return None if self.cache is None else SqliteArmCache(sqlite_store(self.cache, "cache"))

    def open_dead_letters(self) -> DeadLetterStore:
        """The dead letters."""
        return self.open_sqlite_dead_letters()

    def open_sqlite_dead_letters(self) -> SqliteDeadLetters:
        """The dead letters, as the class that can also be searched and redriven."""
        return SqliteDeadLetters(sqlite_store(self.dead_letters, "dead-letters"))

    def open_arai(self) -> AraiSource:
        """The source of profiles."""
        return SqliteActivityLog(sqlite_store(self.arai, "arai"))

    def open_positions(self) -> PositionStore:
        """The committed positions of growing files."""
        return SqlitePositions(sqlite_store(self.positions, "store"))

    def open_model(self) -> ScoringModel:
        """The model.

        Raises:
            UsageError: the model file is missing or is no scorecard.
        """
        return open_model(self.model)


def open_model(address: str | None) -> EmbeddedModel:
    """The model of an address: ``file:///folder/scorecard.json``, or None for the one in the package.

    Raises:
        UsageError: the file is missing or is no scorecard, or the scheme is another.
    """
    if address is None:
        return EmbeddedModel.packaged()
    path = Path(local_path(address))
    try:
        return EmbeddedModel.from_file(path)
    except OSError as error:
        raise UsageError(f"--model: {path} cannot be read: {error.strerror}") from None
    except ScorecardError as error:
        raise UsageError(f"--model: {path} is no scorecard: {error}") from None


def _address(settings: Settings, part: str) -> str:
    address: str | None = getattr(settings, part) or settings.store
    if address is None:
        raise UsageError(
            f"no address for the {part.replace('_', ' ')}: give --store sqlite:///file.db for everything, "
            f"or --{part.replace('_', '-')} (FAN_IDENTITY_STORE, FAN_IDENTITY_{part.upper()})"
        )
    # A wrong scheme is the user's mistake and said before anything runs, under the name it was given.
    sqlite_store(address, part.replace("_", "-") if getattr(settings, part) else "store")
    return address
