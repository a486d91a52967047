"""One SQLite file as queue, table, ARM cache, dead letters and activity log: opening it, its schema, its errors.

Durability: write-ahead log with ``synchronous=NORMAL``. A killed process loses nothing it committed. A power cut may
take back the last commits, but only the newest ones and never one without those after it; the log is shared by all
parts, so an effect is never lost whose message stayed deleted.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from ..errors import BackendUnavailableError, UsageError

_APPLICATION_ID: Final = 0x46414E49  # "FANI": tells our files from other SQLite files
_SCHEMA_VERSION: Final = 3
_BUSY_TIMEOUT_SECONDS: Final = 30.0
_SWITCH_REST_SECONDS: Final = 0.01

_LETTERS_HISTORY: Final = """
CREATE INDEX dead_letters_by_time ON dead_letters (written_at, dead_letter_id);
CREATE TABLE dead_letter_attempts (
    dead_letter_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT NOT NULL,
    request_id TEXT NOT NULL,
    code_version TEXT NOT NULL,
    PRIMARY KEY (dead_letter_id, at, request_id)
) WITHOUT ROWID;
"""

_LETTERS_INDEXES: Final = """
-- Whatever is looked for is some stretches of these (io.sqlite.letter_pages), and counting reads no letter.
CREATE INDEX dead_letters_waiting ON dead_letters (worker, reason, written_at, dead_letter_id)
    WHERE redriven_at IS NULL;
CREATE INDEX dead_letters_redriven ON dead_letters (worker, reason, written_at, dead_letter_id)
    WHERE redriven_at IS NOT NULL;
CREATE INDEX dead_letters_by_activity ON dead_letters (activity_id) WHERE activity_id IS NOT NULL;
"""

_SCHEMA: Final = """
CREATE TABLE queues (
    queue INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    last_seq INTEGER NOT NULL DEFAULT 0
);
-- Clustered by group: receiving and deleting touch a few neighbouring pages, not one a message.
CREATE TABLE messages (
    queue INTEGER NOT NULL,
    group_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (queue, group_id, seq)
) WITHOUT ROWID;
CREATE TABLE message_groups (
    queue INTEGER NOT NULL,
    group_id TEXT NOT NULL,
    head_seq INTEGER NOT NULL,
    locked_until INTEGER NOT NULL DEFAULT 0,
    in_flight_to INTEGER NOT NULL DEFAULT 0,
    received_to INTEGER NOT NULL DEFAULT 0,
    receives INTEGER NOT NULL DEFAULT 0,
    delivery TEXT,
    PRIMARY KEY (queue, group_id)
) WITHOUT ROWID;
CREATE INDEX message_groups_by_head ON message_groups (queue, head_seq, locked_until);
CREATE TABLE deduplication (
    queue INTEGER NOT NULL,
    deduplication_id BLOB NOT NULL,
    sent_at INTEGER NOT NULL,
    precedence BLOB NOT NULL,
    group_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (queue, deduplication_id)
) WITHOUT ROWID;
CREATE TABLE items (
    table_name TEXT NOT NULL,
    pk TEXT NOT NULL,
    sk TEXT NOT NULL,
    version TEXT,
    body BLOB NOT NULL,
    UNIQUE (table_name, pk, sk)
);
CREATE TABLE arm_cache (
    key TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    value BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE dead_letters (
    dead_letter_id TEXT PRIMARY KEY,
    worker TEXT NOT NULL,
    reason TEXT NOT NULL,
    error TEXT NOT NULL,
    stack TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    activity_id TEXT,
    source TEXT NOT NULL,
    position TEXT NOT NULL,
    payload BLOB NOT NULL,
    written_at INTEGER NOT NULL,
    redriven_at INTEGER,
    code_version TEXT NOT NULL DEFAULT ''
);
CREATE TABLE activities (
    user TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    activity_id TEXT NOT NULL,
    type_index INTEGER NOT NULL,
    address INTEGER NOT NULL,
    device INTEGER NOT NULL,
    event INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    PRIMARY KEY (user, time_ms, activity_id)
) WITHOUT ROWID;
CREATE TABLE positions (
    worker TEXT NOT NULL,
    source TEXT NOT NULL,
    position TEXT NOT NULL,
    PRIMARY KEY (worker, source)
) WITHOUT ROWID;
"""

_STEPS: Final = {
    1: f"ALTER TABLE dead_letters ADD COLUMN code_version TEXT NOT NULL DEFAULT '';{_LETTERS_HISTORY}",
    2: _LETTERS_INDEXES,
}
"""By the format of an older store: what makes it the next one. Stores of the program's earlier versions stay in use."""


class SqliteStore:
    """A connection per thread to one SQLite file, made when first used.

    Instances pickle as their path, so a worker process opens its own connections.

    Args:
        path: of the file.
        create: whether it is made where it does not exist.
        durable: whether a commit survives a power cut too (``synchronous=FULL``), not only the end of the process.
    """

    def __init__(self, path: Path, *, create: bool = True, durable: bool = False) -> None:
        self.path = path
        self._create = create
        self._durable = durable
        self._local = threading.local()

    def __reduce__(self) -> tuple[Callable[[Path], "SqliteStore"], tuple[Path]]:
        """Connections stay behind: a copy in another process opens its own."""
        return (partial(SqliteStore, create=self._create, durable=self._durable), (self.path,))

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection, opened and the schema made if need be.

        Raises:
            UsageError: the path is a folder, its folder is missing, or it is no store of ours.
            BackendUnavailableError: the file cannot be opened, is locked or the disk is full.
        """
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        # A forked process must not use its parent's connection: SQLite's locks belong to the process.
        if connection is None or self._local.pid != os.getpid():
            connection = self._open()
            self._local.connection = connection
            self._local.pid = os.getpid()
        return connection

    def close(self) -> None:
        """Closes this thread's connection, if there is one."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """One write transaction: all of it is committed, or none.

        Raises:
            BackendUnavailableError: the disk is full, the file is locked for 30 s, or reading or writing failed.
        """
        connection = self.connection
        with self.translated_errors():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def translated_errors(self) -> Generator[None]:
        """Turns SQLite's errors of the environment into errors of ours; programming errors pass."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise BackendUnavailableError(f"store {self.path}: {_remedy(error)}") from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError)):
                raise
            raise BackendUnavailableError(f"store {self.path}: {error}; the file may be damaged") from error

    def compact(self) -> None:
        """Writes the file anew, so that nothing of what was ever deleted or replaced stands in it or in its log.

        Takes as long as copying the file does, and as much space; others wait meanwhile, for half a minute at most.

        Raises:
            BackendUnavailableError: the disk is full, or another process has read or written all the time.
        """
        connection = self.connection
        with self.translated_errors():
            connection.execute("VACUUM")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise BackendUnavailableError(
                f"store {self.path}: deleted data is still in {self.path.name}-wal, since another process uses the "
                "store; stop it, or run the same command again later"
            )

    def queue_names(self) -> list[str]:
        """The queues that were ever used, by name."""
        with self.translated_errors():
            return [name for (name,) in self.connection.execute("SELECT name FROM queues ORDER BY name")]

    def _open(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise UsageError(f"store {self.path} is a folder; name a file, such as sqlite:///{self.path}/fans.db")
        if not self.path.exists():
            if not self._create:
                raise UsageError(f"store {self.path} does not exist; make it with: fan-identity score INPUT --store …")
            if not self.path.parent.is_dir():
                raise UsageError(
                    f"store {self.path}: there is no folder {self.path.parent} "
                    f"(an absolute path needs four slashes: sqlite:////folder/file.db)"
                )
        with self.translated_errors():
            # Threads keep to their own connection (thread-local), but one is closed by whichever thread ends last.
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        try:
            # In this order: another process may make the schema in between, and then the id is ours already.
            tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            raise UsageError(f"store {self.path} is not an SQLite file; name another file") from None
        if application_id != _APPLICATION_ID and tables:
            raise UsageError(f"store {self.path} is an SQLite file of another program; name another file")
        _switch_to_write_ahead_log(connection)
        connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
        connection.execute("PRAGMA cache_size=-32768")  # 32 MiB
        connection.execute("PRAGMA wal_autocheckpoint=16000")  # 64 MiB of log before pages are copied back
        if not tables:
            self._create_schema(connection)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version in _STEPS:
            version = self._bring_up_to_date(connection)
        if version != _SCHEMA_VERSION:
            raise UsageError(
                f"store {self.path} has format {version}, this program reads {_SCHEMA_VERSION}; use a new file"
            )

    @staticmethod
    def _create_schema(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have made the schema while we waited for the lock.
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in (_SCHEMA + _LETTERS_HISTORY + _LETTERS_INDEXES).split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
        connection.execute("COMMIT")

    @staticmethod
    def _bring_up_to_date(connection: sqlite3.Connection) -> int:
        """Makes an older store the format of this program, in one transaction; returns the format it has then."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have done it while we waited for the lock.
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            while version in _STEPS:
                for statement in _STEPS[version].split(";"):
                    connection.execute(statement)
                version += 1
                connection.execute(f"PRAGMA user_version={version}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return version


def _switch_to_write_ahead_log(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # Of two that switch a new file at once, SQLite refuses one without the usual waiting.
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_SWITCH_REST_SECONDS)


def _remedy(error: sqlite3.OperationalError) -> str:
    text = str(error)
    if "full" in text:
        return "the disk is full; free space and run the same command again, nothing committed is lost"
    if "locked" in text or "busy" in text:
        return f"another process kept it locked for {_BUSY_TIMEOUT_SECONDS:.0f} s; stop that process and try again"
    if "readonly" in text or "read-only" in text:
        return "it cannot be written; check the file's and folder's permissions"
    if "unable to open" in text:
        return "it cannot be opened; check the path and its permissions"
    return text
