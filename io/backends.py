"""From addresses to backends: what stands behind ``sqlite:///…``, ``sqs://…``, ``dynamodb://…`` and the others."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..domain.scorecard import ScorecardError
from .active_imports import ActiveImports
from .addresses import parse_address
from .errors import UsageError
from .fan_verifications import FanVerifications
from .file_ranges import local_path
from .model import EmbeddedModel
from .ports import (
    AraiSource,
    ArmCache,
    Checked,
    DeadLetterArchive,
    FanImports,
    MessageQueue,
    OfTwoKinds,
    PositionStore,
    ScoringModel,
    Stream,
    Table,
)
from .registry import Kind, worker_named
from .settings import Settings
from .sqlite.activity_log import SqliteActivityLog
from .sqlite.dead_letters import SqliteDeadLetters, SqlitePositions
from .sqlite.queue import SqliteQueue
from .sqlite.store import SqliteStore
from .sqlite.table import SqliteArmCache, SqliteTable
from .store_lock import store_lock

if TYPE_CHECKING:
    from .flags import Flags
    from .verifying import IdentityService


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
    """The addresses of one worker's run; each ``open_…`` makes the client behind one. Pickles as text.

    Clients are made once a process: opening the same address again gives the same client.

    Attributes:
        worker: whose they are.
        queue: where an ENQUEUE worker sends and any other receives.
        table: what it writes; also where ARAI items are, if ``arai`` is a table.
        cache: the ARM cache, or None to write none.
        dead_letters: where dead letters go.
        arai: the profiles' source: ``sqlite:///…`` (built here) or ``dynamodb://…`` (ARAI items).
        imports: the fan identity table, where imports are, whatever table the worker writes; None to apply none.
        verifications: the verification table, where scores look for identity checks; None to look for none.
        positions: where the positions of sources are remembered.
        source: what an ENQUEUE worker, or scoreUsers for ARAI changes, reads; None for the queue.
        staging_queue: where an ENQUEUE worker sends a copy of everything, or None.
        model: ``file:///scorecard.json``, ``https://…``, or None for the packaged model.
        accounts: the Accounts API, or None.
        identity: the Identity Service, or None.
        flags: the flag server, or None.
        flags_default: what holds while the flag server was never reached.
        flags_folder: where the last known flags are kept over a restart, or None.
        arai_max_age_ms: an ARAI item older than this is fetched anew.
        visibility_timeout_ms: of received messages.
        rescore_rate: users a second that are rescored in each process.
        operations: where the worker's processes report themselves, or None.
        runner: what runs them, told in their reports.
    """

    worker: str
    queue: str
    table: str
    cache: str | None
    dead_letters: str
    arai: str
    positions: str
    imports: str | None = None
    verifications: str | None = None
    source: str | None = None
    staging_queue: str | None = None
    model: str | None = None
    accounts: str | None = None
    identity: str | None = None
    flags: str | None = None
    flags_default: bool = True
    flags_folder: str | None = None
    arai_max_age_ms: int = 86_400_000
    visibility_timeout_ms: int = 60_000
    rescore_rate: int = 200
    operations: str | None = None
    runner: str = ""

    @classmethod
    def of(cls, settings: Settings, worker: str = "scoreUsers", source: str | None = None) -> "Backends":
        """The backends of a worker; whatever settings do not name is in the store.

        Raises:
            UsageError: a part has neither an address of its own nor a store, or its address cannot be used for it.
        """
        known = worker_named(worker)
        queue = _address(settings, known.queue_setting, QUEUES)
        table = _address(settings, known.table_setting, TABLES)
        dead_letters = _address(settings, "dead_letters", TABLES)
        staging = settings.staging_queue if known.feeds_staging else None
        _check_address(staging, "staging_queue", QUEUES)
        for setting in ("accounts", "identity"):
            _check_address(getattr(settings, setting), setting, ("http", "https"))
        positions = settings.positions or settings.store
        return cls(
            worker=worker,
            queue=queue,
            table=table,
            cache=_address(settings, "cache", CACHES) if known.writes_cache else None,
            dead_letters=dead_letters,
            arai=_address(settings, "arai", TABLES, fallback=settings.table),
            imports=_check_address(settings.table or settings.store, "table" if settings.table else "store", TABLES),
            verifications=_verifications_address(settings),
            positions=_check_address(positions, "positions", TABLES) or (queue if _is_table(queue) else dead_letters),
            source=source,
            staging_queue=staging,
            model=getattr(settings, known.model_setting),
            accounts=settings.accounts,
            identity=settings.identity,
            flags=settings.flags,
            flags_default=settings.flags_default,
            flags_folder=settings.flags_folder,
            arai_max_age_ms=milliseconds(settings.arai_max_age),
            visibility_timeout_ms=milliseconds(settings.visibility_timeout),
            rescore_rate=settings.rescore_rate,
        )

    @classmethod
    def of_tables(cls, settings: Settings, *, writes_cache: bool = True) -> "Backends":
        """The backends of a job over what is stored: it receives from no queue, and none needs an address.

        Args:
            settings: dead letters go to the table where they name no other place.
            writes_cache: whether the job writes the ARM cache, so that it needs its address.

        Raises:
            UsageError: as ``of``.
        """
        table = _address(settings, "table", TABLES)
        dead_letters = _address(settings, "dead_letters", TABLES, fallback=table)
        return cls(
            worker="scoreUsers",
            queue="",
            table=table,
            cache=_address(settings, "cache", CACHES) if writes_cache else None,
            dead_letters=dead_letters,
            arai=table,
            positions=table,
            imports=table,
            verifications=_verifications_address(settings),
        )

    def reporting(self, settings: Settings, runner: str) -> "Backends":
        """The same, for a worker whose processes report themselves (``worker_reports``) where there is a place for it.

        Raises:
            UsageError: the place is no address of a table.
        """
        place = settings.operations or settings.store or settings.table
        operations = None if place is None else operations_address(settings)
        return replace(self, operations=operations, runner=runner)

    def shared_lock(self) -> AbstractContextManager[None]:
        """Held by a worker that may run beside others on the queue's store, and not beside a run that works alone."""
        return self._lock(exclusive=False)

    def exclusive_lock(self) -> AbstractContextManager[None]:
        """Held by a run that works alone on the queue's store."""
        return self._lock(exclusive=True)

    def _lock(self, *, exclusive: bool) -> AbstractContextManager[None]:
        if parse_address(self.queue, "queue").scheme != "sqlite":
            return nullcontext()  # many may receive from a queue server
        store = sqlite_store(self.queue, "queue")
        # Opened first: what is no store gets an error that says so, and no lock file beside it.
        store.connection  # noqa: B018
        return store_lock(store.path, exclusive=exclusive)

    def check(self) -> None:
        """Connects to each part once.

        Raises:
            UsageError: one does not exist, or credentials or region are wrong; names the setting.
            BackendUnavailableError: one is out of reach.
        """
        worker, queue, staging = worker_named(self.worker), self.open_queue(), self.open_staging_queue()
        reads_changes = worker.kind is not Kind.ENQUEUE and self.source is not None
        parts: list[object] = [staging, self.open_dead_letters()]
        if not reads_changes:
            parts.append(queue)
        if self.reads_queue:
            parts.append(self.open_source_queue())
        elif self.source is not None and scheme_of(self.source) in STREAMS:
            parts.append(self.open_stream())
        if worker.kind is not Kind.ENQUEUE:
            parts += [self.open_table(), self.open_cache()]
        if worker.kind is Kind.VERIFY:
            parts.append(self.open_fan_table())
        elif worker.table_setting != "table" and self.imports is not None:
            parts.append(_imports_table(self.imports))
        if worker.kind in (Kind.SCORE, Kind.RESCORE) and self.verifications is not None:
            parts.append(_verification_table(self.verifications))
        for part in parts:
            check_parts([part])
            if worker.keeps_order is not None and part in (queue, staging) and isinstance(part, OfTwoKinds):
                part.expect_fifo(worker.keeps_order)

    def check_stores(self) -> None:
        """Opens the model and connects to dead letters, table and cache once: for jobs that go past the queue.

        Raises:
            UsageError, BackendUnavailableError: as ``check``.
        """
        self.open_model()
        check_parts([self.open_dead_letters(), self.open_table(), self.open_cache()])

    def open_queue(self) -> MessageQueue:
        """The queue."""
        worker = worker_named(self.worker)
        return open_queue(self.queue, _flag(worker.queue_setting), worker.queue_name, self.visibility_timeout_ms)

    @property
    def reads_queue(self) -> bool:
        """Whether the worker's source is a queue, to acknowledge to."""
        return self.source is not None and scheme_of(self.source) in QUEUES

    @property
    def source_queue(self) -> str:
        """The address of the queue the worker receives from: its source where that is a queue, else its queue."""
        return self.source if self.source is not None and self.reads_queue else self.queue

    def open_source_queue(self) -> MessageQueue:
        """The queue the worker receives from."""
        if self.source_queue == self.queue:
            return self.open_queue()
        return open_queue(self.source_queue, "source", worker_named(self.worker).queue_name, self.visibility_timeout_ms)

    def open_staging_queue(self) -> MessageQueue | None:
        """Where a copy of each message goes, or None."""
        if self.staging_queue is None:
            return None
        name = worker_named("stagingScoreUsers").queue_name
        return open_queue(self.staging_queue, "staging-queue", name, self.visibility_timeout_ms)

    def open_sqlite_queue(self) -> SqliteQueue:
        """The queue of an SQLite store, as the class that can also release what a killed process held."""
        queue = self.open_queue()
        if not isinstance(queue, SqliteQueue):
            raise UsageError("--queue: this command works on an SQLite store; give --store sqlite:///file.db")
        return queue

    def open_stream(self) -> Stream:
        """The partitioned log the source names.

        Raises:
            UsageError: it names none.
        """
        if self.source is None:
            raise UsageError("--source: an address is needed, such as kafka://host:9092/topic")
        return open_stream(self.source, self.worker)

    def open_table(self) -> Table:
        """The table."""
        worker = worker_named(self.worker)
        return open_table(self.table, _flag(worker.table_setting), worker.table_name)

    def open_sqlite_table(self) -> SqliteTable:
        """The table of an SQLite store, as the class that can also be read from end to end."""
        table = self.open_table()
        if not isinstance(table, SqliteTable):
            raise UsageError("--table: this command works on an SQLite store; give --store sqlite:///file.db")
        return table

    def open_cache(self) -> ArmCache | None:
        """The ARM cache, or None where the worker writes none."""
        return None if self.cache is None else open_cache(self.cache)

    def open_imports(self) -> FanImports | None:
        """What the active imports say of fans, or None where there is no fan identity table."""
        return None if self.imports is None else open_imports(self.imports)

    def open_fan_table(self) -> Table:
        """The fan identity table, whatever table the worker writes.

        Raises:
            UsageError: it has no address.
        """
        if self.imports is None:
            raise UsageError(
                f"{self.worker} needs the fan identity table too: set FAN_IDENTITY_TABLE, or --store for everything"
            )
        return _imports_table(self.imports)

    def open_verifications(self) -> FanVerifications | None:
        """What identity checks say of fans, or None where there is no verification table."""
        return None if self.verifications is None else FanVerifications(_verification_table(self.verifications))

    def open_dead_letters(self) -> DeadLetterArchive:
        """The dead letters."""
        return open_dead_letters(self.dead_letters)

    @property
    def builds_profiles(self) -> bool:
        """Whether profiles are built here, from the activities enqueued; else others know them."""
        return scheme_of(self.arai) == "sqlite"

    def open_arai(self) -> AraiSource:
        """The source of profiles."""
        if self.builds_profiles:
            return SqliteActivityLog(sqlite_store(self.arai, "arai"))
        from .accounts import AccountsClient  # noqa: PLC0415
        from .table_arai import TableArai  # noqa: PLC0415

        table = open_table(self.arai, "arai", worker_named("scoreUsers").table_name)
        accounts = None if self.accounts is None else AccountsClient.of(self.accounts, "accounts")
        return TableArai(table, accounts, max_age_ms=self.arai_max_age_ms, readers=_ARAI_READERS)

    def open_positions(self) -> PositionStore:
        """The committed positions of the source."""
        if self.source is not None and scheme_of(self.source) == "kafka":
            from .kafka import KafkaPositions  # noqa: PLC0415

            return KafkaPositions.of(parse_address(self.source, "source"), "source", self.worker)
        if scheme_of(self.positions) == "sqlite":
            return SqlitePositions(sqlite_store(self.positions, "store"))
        from .dynamodb.positions import DynamoDbPositions  # noqa: PLC0415

        return DynamoDbPositions.of(parse_address(self.positions, "positions"), "positions")

    def open_model(self) -> ScoringModel:
        """The model.

        Raises:
            UsageError: the model file is missing or is no scorecard.
        """
        return open_scoring_model(self.model, _flag(worker_named(self.worker).model_setting))

    def open_identity(self) -> "IdentityService | None":
        """The Identity Service, or None."""
        if self.identity is None:
            return None
        from .identity import IdentityClient  # noqa: PLC0415

        return IdentityClient.of(self.identity, "identity")

    def open_flags(self) -> "Flags":
        """The flags; everything is on where there is no flag server."""
        return open_flags(self.flags, self.flags_default, self.flags_folder)


def check_parts(parts: Iterable[object]) -> None:
    """Connects once to each part that can be asked.

    Raises:
        UsageError: one does not exist, or credentials or region are wrong; names the setting.
        BackendUnavailableError: one is out of reach.
    """
    for part in parts:
        if isinstance(part, Checked):
            part.check()


QUEUES: Final = ("sqlite", "sqs", "pubsub")
TABLES: Final = ("sqlite", "dynamodb")
CACHES: Final = ("sqlite", "redis", "rediss", "redis-cluster", "rediss-cluster")
_ARAI_READERS: Final = 16
STREAMS: Final = ("kafka", "kinesis", "dynamodb-streams")
MODELS: Final = ("file", "http", "https")


def scheme_of(text: str) -> str:
    """The scheme of an address, in lower case; "" for a text that has none."""
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator else ""


@cache
def open_queue(text: str, setting: str, name: str, visibility_timeout_ms: int) -> MessageQueue:
    """The queue of an address.

    Args:
        text: ``sqlite:///file.db?queue=NAME``, ``sqs://NAME`` or ``pubsub://PROJECT/TOPIC-OR-SUBSCRIPTION``.
        setting: for errors.
        name: of the queue in an SQLite store where the address gives none.
        visibility_timeout_ms: of received messages.

    Raises:
        UsageError: the address is none of a queue.
    """
    address = parse_address(text, setting)
    match address.scheme:
        case "sqs":
            from .sqs.queue import SqsQueue  # noqa: PLC0415

            return SqsQueue.of(address, setting, visibility_timeout_ms)
        case "pubsub":
            from .pubsub.queue import PubSubQueue  # noqa: PLC0415

            return PubSubQueue.of(address, setting, visibility_timeout_ms)
        case _:
            store = sqlite_store(text, setting)
            return SqliteQueue(store, address.options.get("queue", name), visibility_timeout_ms=visibility_timeout_ms)


@cache
def open_table(text: str, setting: str, name: str) -> Table:
    """The table of an address: ``sqlite:///file.db?table=NAME`` (``name`` where it gives none) or ``dynamodb://NAME``.

    Raises:
        UsageError: the address is none of a table.
    """
    address = parse_address(text, setting)
    if address.scheme == "dynamodb":
        from .dynamodb.table import DynamoDbTable  # noqa: PLC0415

        return DynamoDbTable.of(address, setting)
    return SqliteTable(sqlite_store(text, setting), address.options.get("table", name))


def _imports_table(text: str) -> Table:
    return open_table(text, "table", worker_named("scoreUsers").table_name)


def _verification_table(text: str) -> Table:
    return open_table(text, "verification-table", worker_named("handleEvent").table_name)


def _verifications_address(settings: Settings) -> str | None:
    return _check_address(settings.verification_table or settings.store or None, "verification_table", TABLES)


def operations_address(settings: Settings) -> str:
    """Where workers' reports, the audit log and told outages are: ``operations``, else the store, else the table.

    Raises:
        UsageError: none of them is set, or it is no address of a table.
    """
    return _address(settings, "operations", TABLES, fallback=settings.table)


def open_operations(text: str) -> Table:
    """The operations table of an address; in an SQLite file the table ``operations``.

    Raises:
        UsageError: the address is none of a table.
    """
    return open_table(text, "operations", "operations")


@cache
def open_imports(text: str) -> FanImports:
    """The active imports of the fan identity table at an address; one a process, so that all parts know the same.

    Raises:
        UsageError: the address is none of a table.
    """
    return ActiveImports(_imports_table(text))


@cache
def open_cache(text: str) -> ArmCache:
    """The ARM cache of an address: ``sqlite:///file.db``, ``redis://host/0`` and its TLS and cluster forms.

    Raises:
        UsageError: the address is none of a cache.
    """
    address = parse_address(text, "cache")
    if address.scheme in CACHES and address.scheme != "sqlite":
        from .redis_cache import RedisArmCache  # noqa: PLC0415

        return RedisArmCache.of(address, "cache")
    return SqliteArmCache(sqlite_store(text, "cache"))


@cache
def open_dead_letters(text: str, *, create: bool = True) -> DeadLetterArchive:
    """The dead letters of an address: ``sqlite:///file.db`` or ``dynamodb://table``.

    Raises:
        UsageError: the address is none, or ``create`` is False and the SQLite file does not exist.
    """
    address = parse_address(text, "dead-letters")
    if address.scheme == "dynamodb":
        from .dynamodb.dead_letters import DynamoDbDeadLetters  # noqa: PLC0415

        return DynamoDbDeadLetters.of(address, "dead-letters")
    return SqliteDeadLetters(sqlite_store(text, "dead-letters", create=create))


def open_stream(text: str, worker: str) -> Stream:
    """The partitioned log of an address: ``kafka://…``, ``kinesis://…`` or ``dynamodb-streams://…``.

    Raises:
        UsageError: the address is none of a stream.
    """
    address = parse_address(text, "source")
    match address.scheme:
        case "kafka":
            from .kafka import KafkaStream  # noqa: PLC0415

            return KafkaStream.of(address, "source", worker)
        case "kinesis":
            from .kinesis import KinesisStream  # noqa: PLC0415

            return KinesisStream.of(address, "source", worker)
        case "dynamodb-streams":
            from .dynamodb_streams import DynamoDbStream  # noqa: PLC0415

            return DynamoDbStream.of(address, "source", worker)
        case _:
            raise UsageError(f"--source: {address.scheme}:// is no stream; use {_either(STREAMS)}")


@cache
def open_scoring_model(text: str | None, setting: str = "model") -> ScoringModel:
    """The model of an address: ``https://…`` for a model server, else as ``open_model``.

    Raises:
        UsageError: the address is none of a model.
    """
    if text is not None and scheme_of(text) in ("http", "https"):
        from .scoring_model import HttpScoringModel  # noqa: PLC0415

        return HttpScoringModel.of(text, setting)
    return open_model(text)


@cache
def open_flags(text: str | None, default: bool, folder: str | None) -> "Flags":
    """The flags of an address: ``unleash+https://host/api``; None for everything on."""
    from .flags import StaticFlags, UnleashFlags  # noqa: PLC0415

    if text is None:
        return StaticFlags()
    return UnleashFlags.of(text, "flags", cache_folder=None if folder is None else Path(folder), default=default)


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


def milliseconds(duration: timedelta) -> int:
    """A duration in whole milliseconds."""
    return duration // timedelta(milliseconds=1)


def _flag(setting: str) -> str:
    return setting.replace("_", "-")


def _is_table(text: str) -> bool:
    return scheme_of(text) in TABLES


def _either(schemes: Sequence[str]) -> str:
    return " or ".join("sqlite:///file.db" if scheme == "sqlite" else f"{scheme}://…" for scheme in schemes)


def _check_address(text: str | None, setting: str, schemes: Sequence[str]) -> str | None:
    """A wrong scheme is the user's mistake and said before anything runs, under the name it was given."""
    if text is None:
        return None
    scheme = parse_address(text, _flag(setting)).scheme
    if scheme not in schemes:
        raise UsageError(f"--{_flag(setting)}: {scheme}:// is not supported here; use {_either(schemes)}")
    if scheme == "sqlite":
        sqlite_store(text, _flag(setting))
    return text


def _address(settings: Settings, setting: str, schemes: Sequence[str], *, fallback: str | None = None) -> str:
    own: str | None = getattr(settings, setting)
    if own is not None:
        return _check_address(own, setting, schemes) or own
    address = settings.store or fallback
    if address is None:
        raise UsageError(
            f"no address for the {setting.replace('_', ' ')}: give --store sqlite:///file.db for everything, "
            f"or --{_flag(setting)} (FAN_IDENTITY_STORE, FAN_IDENTITY_{setting.upper()})"
        )
    return _check_address(address, "store" if settings.store else setting, schemes) or address
