"""Sending dead letters again: back through the door they came in by.

A letter of an enqueue worker is decoded, filtered and queued like a record just read; a letter of a scoring worker
goes back into the queue. What fails again stays a dead letter with one more attempt. Every attempt is recorded.
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from msgspec.structs import replace as replaced

from ..domain.activity import MalformedRecordError
from ..domain.arai_changes import select_arai_response
from ..domain.dead_letters import OF_IMPORTS, RedriveAttempt
from ..domain.messages import decode_message, encode_message
from ..domain.profile import ActivityFacts
from ..domain.records import Batch, DeadLetter, Failure, RawRecord
from ..domain.scorable import ScorableRules, rejection
from ..io import access_log
from ..io.backends import STREAMS, Backends, scheme_of
from ..io.clock import now_ms
from ..io.consuming import event_group
from ..io.pacing import Pacer
from ..io.ports import DeadLetterArchive, QueueEntry, StoredDeadLetter
from ..io.registry import WORKERS, Kind
from ..io.steps import decode_activities, facts_with_user, group_of, queue_entry

_UNKNOWN_WORKERS: Final = "enqueueFromStream"  # letters of a worker that is no more are records all the same
_SCORING: Final = "scoreUsers"
_PORTION: Final = 100


@dataclass(frozen=True)
class RedriveResult:
    """What became of the letters.

    Attributes:
        queued: sent again.
        rejected: read now, but not scorable: done with.
        failed: failed again; they wait.
        of_imports: of import workers; they cannot be sent again and wait.
        interrupted: the run was asked to stop before the last one.
        workers: whose queues they were sent to, sorted.
    """

    queued: int = 0
    rejected: int = 0
    failed: int = 0
    of_imports: int = 0
    interrupted: bool = False
    workers: tuple[str, ...] = ()

    @property
    def looked_at(self) -> int:
        """Letters the run came to."""
        return self.queued + self.rejected + self.failed + self.of_imports


@dataclass
class Redrive:
    """A run that sends letters again and records each attempt.

    An attempt is recorded only after the queue has the message: a run killed in between sends it twice, and scoring
    twice changes nothing.

    Args:
        letters: where they are.
        rules: what is scorable.
        backends_of: the backends of a worker, by its name.
        pacer: how many letters a second are sent, so that live traffic does not wait behind them; None for no limit.
        stop: asked between portions.
    """

    letters: DeadLetterArchive
    rules: ScorableRules
    backends_of: Callable[[str], Backends]
    pacer: Pacer | None = None
    stop: Callable[[], bool] = bool
    result: RedriveResult = field(default_factory=RedriveResult, init=False)
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)

    def run(self, pages: Iterable[Sequence[StoredDeadLetter]]) -> RedriveResult:
        """Sends letters again, page by page.

        Raises:
            BackendUnavailableError: a backend cannot be read or written; what was sent until then is recorded.
        """
        size = _PORTION if self.pacer is None else self.pacer.portion(_PORTION)
        for page in pages:
            for start in range(0, len(page), size):
                if self.stop():
                    self.result = replace(self.result, interrupted=True)
                    return self.result
                self._send(page[start : start + size])
        return self.result

    def _send(self, portion: Sequence[StoredDeadLetter]) -> None:
        by_backends: dict[Backends, list[DeadLetter]] = {}
        for stored in portion:
            letter = stored.letter
            if letter.worker in OF_IMPORTS:
                self.result = replace(self.result, of_imports=self.result.of_imports + 1)
                continue
            name = letter.worker if letter.worker in WORKERS else _UNKNOWN_WORKERS
            by_backends.setdefault(self.backends_of(name), []).append(letter)
        if self.pacer is not None:
            self.pacer.take(len(portion))
        for backends, letters in by_backends.items():
            prepared = [self._prepared(letter) for letter in letters]
            backends.open_arai().observe([one.facts for one in prepared if one.facts is not None])
            entries = [one.entry for one in prepared if one.entry is not None]
            outcomes = iter(backends.open_queue().send(entries))
            for one in prepared:
                if one.entry is not None and isinstance(outcome := next(outcomes), Failure):
                    one.outcome, one.error = "failed", outcome.error
            self._record(prepared)

    def _record(self, prepared: Sequence["_Prepared"]) -> None:
        now = now_ms()
        # Written again first, since that makes a letter wait.
        if again := [one.again for one in prepared if one.again is not None]:
            self.letters.write(again)
        self.letters.record(
            [
                RedriveAttempt(one.letter.dead_letter_id, now, one.outcome, one.error, self.request_id)
                for one in prepared
            ]
        )
        numbers = {name: sum(one.outcome == name for one in prepared) for name in ("queued", "rejected", "failed")}
        workers = {_worker_of(one.letter) for one in prepared if one.outcome == "queued"}.union(self.result.workers)
        self.result = replace(
            self.result,
            workers=tuple(sorted(workers)),
            **{name: getattr(self.result, name) + number for name, number in numbers.items()},
        )

    def _prepared(self, letter: DeadLetter) -> "_Prepared":
        worker = WORKERS.get(letter.worker)
        if worker is not None and worker.kind is not Kind.ENQUEUE:
            return _requeued(letter, worker.kind)
        batch = decode_activities(Batch(self.request_id, letter.source, [_raw_record(letter)]), letter.worker)
        if batch.dead_letters:
            again = batch.dead_letters[0]
            # Its id and number of attempts stay: the attempt itself is counted when it is recorded.
            kept = replaced(again, dead_letter_id=letter.dead_letter_id, attempts=letter.attempts)
            return _Prepared(letter, "failed", again.error, again=kept)
        record = batch.items[0]
        if rejection(record.activity, record.time_ms, self.rules) is not None:
            return _Prepared(letter, "rejected")
        entry = queue_entry(record, self.request_id, letter.worker)
        return _Prepared(letter, "queued", entry=entry, facts=facts_with_user(record))


@dataclass
class _Prepared:
    """A letter with what is to be sent for it, or why nothing is."""

    letter: DeadLetter
    outcome: Literal["queued", "rejected", "failed"]
    error: str = ""
    entry: QueueEntry | None = None
    facts: tuple[str, ActivityFacts] | None = None
    again: DeadLetter | None = None


def _worker_of(letter: DeadLetter) -> str:
    """The worker that works off the queue a letter is sent to."""
    worker = WORKERS.get(letter.worker)
    return _SCORING if worker is None or worker.kind is Kind.ENQUEUE else worker.name


def _requeued(letter: DeadLetter, kind: Kind) -> _Prepared:
    body = letter.payload
    if scheme_of(letter.source) in STREAMS and not _is_message(body):
        # A change record goes back as what it asks for: a message to score its user.
        try:
            change = select_arai_response(body, letter.request_id)
        except MalformedRecordError as error:
            return _Prepared(letter, "failed", str(error))
        if change is None:
            return _Prepared(letter, "failed", "not a change of an ARAI response")
        body = encode_message(change.message)
    entry = QueueEntry(
        group_id=group_of(body) if kind is not Kind.VERIFY else event_group(body, letter.dead_letter_id),
        # Its own id for each attempt: the message's would still be known as a duplicate.
        deduplication_id=f"{letter.dead_letter_id}/{letter.attempts}",
        body=body,
    )
    return _Prepared(letter, "queued", entry=entry)


def _is_message(body: bytes) -> bool:
    """Whether a letter holds a message: a backfill scores a stream's records past the queue."""
    try:
        decode_message(body)
    except MalformedRecordError:
        return False
    return True


def _raw_record(letter: DeadLetter) -> RawRecord:
    """The record as its source delivered it. A CSV row cannot be read without its header, so it fails again."""
    if not access_log.matches(letter.payload):
        return RawRecord(letter.payload, letter.position, letter.payload)
    try:
        return RawRecord(letter.payload, letter.position, access_log.activity_of(letter.payload))
    except MalformedRecordError as error:
        return RawRecord(letter.payload, letter.position, None, str(error))
