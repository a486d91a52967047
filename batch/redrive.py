"""Sending dead letters again: back through the door they came in by.

A letter of an enqueue worker is decoded, filtered and queued like a record just read; a letter of a scoring worker
goes back into the queue. What fails again stays a dead letter with one more attempt.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from ..domain.activity import MalformedRecordError
from ..domain.arai_changes import select_arai_response
from ..domain.messages import encode_message
from ..domain.records import Batch, DeadLetter, Failure, RawRecord
from ..domain.scorable import ScorableRules, rejection
from ..io import access_log
from ..io.backends import STREAMS, Backends, scheme_of
from ..io.ports import QueueEntry, StoredDeadLetter
from ..io.registry import WORKERS, Kind
from ..io.steps import decode_activities, facts_with_user, group_of, queue_entry

_UNKNOWN_WORKERS = "enqueueFromStream"  # letters of a worker that is no more are records all the same


@dataclass(frozen=True)
class RedriveResult:
    """What became of the letters.

    Attributes:
        queued: sent again.
        rejected: read now, but not scorable: done with.
        failed: failed again; they wait.
    """

    queued: int = 0
    rejected: int = 0
    failed: int = 0


def redrive(
    letters: Sequence[StoredDeadLetter], rules: ScorableRules, backends_of: Callable[[str], Backends]
) -> RedriveResult:
    """Sends letters again and marks those that got through.

    Marked only after the queue has them: a run killed in between sends them twice, and scoring twice changes nothing.

    Args:
        letters: of any workers.
        rules: what is scorable.
        backends_of: the backends of a worker, by its name.

    Raises:
        BackendUnavailableError: a backend cannot be read or written.
    """
    request_id = uuid.uuid4().hex
    result = RedriveResult()
    for stored in letters:
        worker = WORKERS.get(stored.letter.worker)
        backends = backends_of(stored.letter.worker if worker else _UNKNOWN_WORKERS)
        if worker is None or worker.kind is Kind.ENQUEUE:
            result = _enqueue(stored, request_id, rules, backends, result)
        else:
            result = _requeue(stored, backends, result)
    return result


def _requeue(stored: StoredDeadLetter, backends: Backends, result: RedriveResult) -> RedriveResult:
    letter = stored.letter
    body = letter.payload
    if scheme_of(letter.source) in STREAMS:
        # A change record goes back as what it asks for: a message to score its user.
        try:
            change = select_arai_response(body, letter.request_id)
        except MalformedRecordError:
            change = None
        if change is None:
            return replace(result, failed=result.failed + 1)
        body = encode_message(change.message)
    entry = QueueEntry(
        group_id=group_of(body),
        # Its own id for each attempt: the message's would still be known as a duplicate.
        deduplication_id=f"{letter.dead_letter_id}/{letter.attempts}",
        body=body,
    )
    (outcome,) = backends.open_queue().send([entry])
    if isinstance(outcome, Failure):
        return replace(result, failed=result.failed + 1)
    backends.open_dead_letters().mark_redriven([letter.dead_letter_id])
    return replace(result, queued=result.queued + 1)


def _enqueue(
    stored: StoredDeadLetter, request_id: str, rules: ScorableRules, backends: Backends, result: RedriveResult
) -> RedriveResult:
    letter = stored.letter
    letters = backends.open_dead_letters()
    raw = _raw_record(letter)
    batch = decode_activities(Batch(request_id, letter.source, [raw]), letter.worker)
    if batch.dead_letters:
        again = batch.dead_letters[0]
        letters.write([msgspec.structs.replace(again, attempts=letter.attempts + 1)])
        return replace(result, failed=result.failed + 1)
    record = batch.items[0]
    if rejection(record.activity, record.time_ms, rules) is not None:
        letters.mark_redriven([letter.dead_letter_id])
        return replace(result, rejected=result.rejected + 1)
    backends.open_arai().observe([facts_with_user(record)])
    (outcome,) = backends.open_queue().send([queue_entry(record, request_id, letter.worker)])
    if isinstance(outcome, Failure):
        return replace(result, failed=result.failed + 1)
    letters.mark_redriven([letter.dead_letter_id])
    return replace(result, queued=result.queued + 1)


def _raw_record(letter: DeadLetter) -> RawRecord:
    """The record as its source delivered it. A CSV row cannot be read without its header, so it fails again."""
    if not access_log.matches(letter.payload):
        return RawRecord(letter.payload, letter.position, letter.payload)
    try:
        return RawRecord(letter.payload, letter.position, access_log.activity_of(letter.payload))
    except MalformedRecordError as error:
        return RawRecord(letter.payload, letter.position, None, str(error))
