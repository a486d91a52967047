"""Imports started by what arrives: an object in S3, told by an event.

The file of each new object is one import, a complete version. Of a delivery in several files, the marker that its
writer puts last (``_SUCCESS``) is the one to be told of: it imports all files of its folder.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..domain.activity import MalformedRecordError
from ..domain.dead_letters import IMPORT_EVENTS
from ..domain.imports import ImportKind
from ..domain.records import DeadLetter, dead_letter_id
from ..domain.s3_events import S3Object, objects_created
from ..io.errors import FanIdentityError, UsageError
from ..io.file_ranges import shown
from ..io.ports import DeadLetterStore, MessageQueue, ReceivedMessage
from ..io.steps import MAX_RECEIVES, retry_delay_ms

if TYPE_CHECKING:
    from .import_job import ImportOutcome

Start = Callable[[ImportKind, list[str]], "ImportOutcome"]
"""Runs an import of a kind over addresses, to its end."""

Already = Callable[[FanIdentityError], bool]
"""Whether an error of ``Start`` says that the files were imported before."""

Prefixes = dict[ImportKind, str]
"""By kind, how the keys of its files begin; "" for a kind that is not told by its keys."""

_MARKER: Final = "_SUCCESS"
_IDLE_SECONDS: Final = 1.0
_log: Final = logging.getLogger(__name__)


def address_to_import(created: S3Object, options: str = "") -> str:
    """What an event asks to import: the object, or the folder that its marker completes.

    Args:
        created: the object.
        options: of the address, ``region=eu-west-1``.

    Raises:
        UsageError: the key has a question mark, where an address's options begin: part of it would be taken for them.

    >>> address_to_import(S3Object("b", "clusters/2026-11-26/_SUCCESS", 0, 0))
    's3://b/clusters/2026-11-26/'
    """
    if "?" in created.key:
        raise UsageError(f"{shown(created.address)}: a key with a question mark is not read; rename it")
    folder, _, name = created.key.rpartition("/")
    address = f"s3://{created.bucket}/{folder}/" if name == _MARKER and folder else created.address
    return f"{address}?{options}" if options else address


def kind_by_key(key: str, prefixes: Prefixes) -> ImportKind | None:
    """The kind whose prefix a key begins with, the longest first; None where it begins with none."""
    matching = [(len(prefix), kind) for kind, prefix in prefixes.items() if prefix and key.startswith(prefix)]
    return max(matching)[1] if matching else None


def kind_by_columns(address: str) -> ImportKind:
    """The kind whose columns the files have.

    Raises:
        UsageError: they are of no kind, or cannot be read.
        BackendUnavailableError: the store is out of reach.
    """
    from ..io.import_files import plan_import  # noqa: PLC0415 - brings pyarrow

    problems: list[str] = []
    for kind in ImportKind:
        try:
            plan_import([address], kind)
        except UsageError as error:
            problems.append(str(error))
        else:
            return kind
    raise UsageError(f"neither clusters nor bot-or-not scores: {problems[0]}")


@dataclass(frozen=True)
class Started:
    """What came of an event's files.

    Attributes:
        outcomes: of the imports that ran, in the event's order.
        problems: of the files that do not fit: one line each.
    """

    outcomes: "list[ImportOutcome]" = field(default_factory=lambda: [])
    problems: list[str] = field(default_factory=list[str])

    @property
    def refused(self) -> list[str]:
        """Why each of those that did not become active did not: refused after a look inside, or unfit before."""
        return [outcome.refused for outcome in self.outcomes if outcome.refused is not None] + self.problems


def start_imports(body: bytes, prefixes: Prefixes, start: Start, already: Already, options: str = "") -> Started:
    """Runs the imports that an event asks for, one after another; a file that does not fit stops none behind it.

    An event that failed half way comes again, so what was imported before is passed over as long as there is more.

    Args:
        body: the event, as ``objects_created`` takes it.
        prefixes: tell the kind of a file; its columns where they do not.
        start: runs one.
        already: whether an error of ``start`` says that the files were imported before.
        options: of the addresses it is given.

    Raises:
        MalformedRecordError: it is no event of S3.
        FanIdentityError: what may work later, as ``start`` raises it; imports before it in the event are done. That
            files were imported before only where that holds for all.
    """
    started = Started()
    before: FanIdentityError | None = None
    asked: set[str] = set()
    for created in objects_created(body):
        try:
            address = address_to_import(created, options)
            if address in asked:
                continue
            asked.add(address)
            kind = kind_by_key(created.key, prefixes) or kind_by_columns(address)
            started.outcomes.append(start(kind, [address]))
        except FanIdentityError as error:
            if already(error):
                before = error
            elif error.exit_code == UsageError.exit_code:
                started.problems.append(str(error))
            else:
                raise
    if before is not None and not (started.outcomes or started.problems):
        raise before
    return started


class WatchQueue:
    """Runs the imports that a queue's messages ask for, one message after another.

    A message is deleted once its imports have ended, or a dead letter says why not: it is no event of S3, a file does
    not fit, or an import was refused. What may work later (another import is running, a backend is out of reach) is
    tried again, at most ``MAX_RECEIVES`` times, and becomes a dead letter then. An event that comes twice does no harm:
    the same files are not imported twice (``already`` tells that error).

    Args:
        queue: of events.
        letters: where what cannot be imported goes.
        source: the queue's address, for dead letters.
        prefixes: as ``start_imports`` takes them.
        start: likewise.
        already: whether an error of ``start`` says that the files were imported before.
        options: of the addresses it is given.
    """

    def __init__(
        self,
        queue: MessageQueue,
        letters: DeadLetterStore,
        source: str,
        prefixes: Prefixes,
        start: Start,
        already: Already,
        options: str = "",
    ) -> None:
        self._queue = queue
        self._letters = letters
        self._source = source.partition("?")[0]
        self._prefixes = prefixes
        self._start = start
        self._already = already
        self._options = options

    def run(self, ended: threading.Event, may_start: Callable[[], bool] = lambda: True) -> dict[str, int]:
        """Watches until told to end; an import that runs is finished.

        Args:
            ended: set to end it.
            may_start: whether messages are taken now; while not, they wait in the queue.

        Returns:
            Counts: ``messages``, ``imports``, ``again`` (given back to the queue), ``dead_lettered.<reason>``.

        Raises:
            BackendUnavailableError: the queue or the dead letters are out of reach.
        """
        counts: dict[str, int] = {"messages": 0, "imports": 0, "again": 0}
        while not ended.is_set():
            received = self._queue.receive(1) if may_start() else []
            for message in received:
                counts["messages"] += 1
                self._one(message, counts)
            if not received:
                ended.wait(_IDLE_SECONDS)
        return counts

    def _one(self, message: ReceivedMessage, counts: dict[str, int]) -> None:
        try:
            started = start_imports(message.body, self._prefixes, self._start, self._already, self._options)
        except MalformedRecordError as error:
            self._give_up(message, "malformed", str(error), counts)
        except FanIdentityError as error:
            if self._already(error):
                _log.info("files that were imported before")
            elif message.receive_count < MAX_RECEIVES:
                _log.warning("an import is tried again", extra={"error": str(error)})
                counts["again"] += 1
                self._queue.release([message.receipt], retry_delay_ms(message.receive_count))
                return
            else:
                self._give_up(message, "import_unavailable", str(error), counts)
        else:
            counts["imports"] += len(started.outcomes)
            if started.refused:
                self._give_up(message, "import_refused", "; ".join(started.refused), counts)
        self._queue.delete([message.receipt])

    def _give_up(self, message: ReceivedMessage, reason: str, error: str, counts: dict[str, int]) -> None:
        position = f"message {message.message_id}"
        self._letters.write(
            [
                DeadLetter(
                    dead_letter_id=dead_letter_id(IMPORT_EVENTS, self._source, position, message.body),
                    worker=IMPORT_EVENTS,
                    reason=reason,
                    error=error,
                    stack="",
                    attempts=message.receive_count,
                    request_id="",
                    activity_id=None,
                    source=self._source,
                    position=position,
                    payload=message.body,
                )
            ]
        )
        name = f"dead_lettered.{reason}"
        counts[name] = counts.get(name, 0) + 1
        _log.warning("an event started no import", extra={"reason": reason, "error": error})
