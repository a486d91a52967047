"""The second half: messages become scores in the table and in the ARM cache.

``DecodeMessages → FetchArai → ScoreUsers → PersistScores``; then ``finish.py`` ends the batch. Every step keeps the
queue's order, so a user's messages are scored in the order they were received.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from typing_extensions import override

from ..domain.activity import MalformedRecordError
from ..domain.keys import fifo_group_id
from ..domain.messages import ScoringMessage, decode_message
from ..domain.profile import Profile
from ..domain.records import Batch, DeadLetter, dead_letter_id
from ..domain.scorecard import ModelScore
from ..domain.scores import cache_entry, latest_item, score_item, version_of
from ..io.backends import Backends
from ..io.clock import now_ms
from ..io.ports import ReceivedMessage
from .batches import BatchStep, BatchTransform, count, par_do

MAX_RECEIVES = 10
"""A message received this often without success is given up on."""


class QueuedActivity(msgspec.Struct, frozen=True, gc=False):
    """A received message, decoded.

    Attributes:
        receipt: deletes it.
        message: what to score.
    """

    receipt: str
    message: ScoringMessage


class ProfiledActivity(msgspec.Struct, frozen=True, gc=False):
    """A received message with its user's profile as of its activity."""

    receipt: str
    message: ScoringMessage
    profile: Profile


class ScoredActivity(msgspec.Struct, frozen=True, gc=False):
    """A received message with its score."""

    receipt: str
    message: ScoringMessage
    score: ModelScore


def decode_messages(batch: Batch[ReceivedMessage], worker: str) -> Batch[QueuedActivity]:
    """Decodes received messages; a malformed one, or one received too often, becomes a dead letter."""
    decoded: list[QueuedActivity] = []
    failed: list[DeadLetter] = []
    for received in batch.items:
        try:
            message = decode_message(received.body)
        except MalformedRecordError as error:
            failed.append(_dead_letter(batch, received, worker, "malformed", str(error), None))
            continue
        if received.receive_count > MAX_RECEIVES:
            error = f"received {received.receive_count} times without success"
            failed.append(_dead_letter(batch, received, worker, "too_many_receives", error, message))
            continue
        decoded.append(QueuedActivity(received.receipt, message))
    return batch.with_items(decoded, failed)


def group_of(body: bytes) -> str:
    """The FIFO group a message's body belongs to; one group for all bodies that are no messages."""
    try:
        return fifo_group_id(decode_message(body).global_user_id)
    except MalformedRecordError:
        return "malformed"


def _dead_letter(
    batch: Batch[ReceivedMessage],
    received: ReceivedMessage,
    worker: str,
    reason: str,
    error: str,
    message: ScoringMessage | None,
) -> DeadLetter:
    position = f"message {received.message_id}"  # the same at every delivery, as the receipt is not
    # A message of ours is named by its content: redriven, it comes back under another number as the same letter.
    named_by = position if message is None else ""
    return DeadLetter(
        dead_letter_id=dead_letter_id(worker, batch.source, named_by, received.body),
        worker=worker,
        reason=reason,
        error=error,
        stack="",
        attempts=received.receive_count,
        request_id=batch.request_id if message is None else message.request_id,
        activity_id=None if message is None else message.activity_id,
        source=batch.source,
        position=position,
        payload=received.body,
        receipt=received.receipt,
    )


@dataclass
class DecodeMessages(BatchTransform):
    """``Batch[ReceivedMessage]`` to ``Batch[QueuedActivity]``; see ``decode_messages``."""

    worker: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Decode(self.worker))


class _Decode(BatchStep):
    def __init__(self, worker: str) -> None:
        self._worker = worker

    @override
    def step(self, batch: Batch[ReceivedMessage]) -> Batch[QueuedActivity]:
        return decode_messages(batch, self._worker)


@dataclass
class FetchArai(BatchTransform):
    """Adds to each message its user's profile as of the message's activity: ``Batch[ProfiledActivity]``."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Fetch(self.backends))


class _Fetch(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def setup(self) -> None:
        self._arai = self._backends.open_arai()

    @override
    def step(self, batch: Batch[QueuedActivity]) -> Batch[ProfiledActivity]:
        profiles = self._arai.fetch([queued.message for queued in batch.items])
        return batch.with_items(
            [
                ProfiledActivity(queued.receipt, queued.message, profile)
                for queued, profile in zip(batch.items, profiles, strict=True)
            ]
        )


@dataclass
class ScoreUsers(BatchTransform):
    """Scores each profile with the model, one call a batch: ``Batch[ScoredActivity]``."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Score(self.backends))


class _Score(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def setup(self) -> None:
        self._model = self._backends.open_model()

    @override
    def step(self, batch: Batch[ProfiledActivity]) -> Batch[ScoredActivity]:
        scores = self._model.score([profiled.profile for profiled in batch.items])
        return batch.with_items(
            [
                ScoredActivity(profiled.receipt, profiled.message, score)
                for profiled, score in zip(batch.items, scores, strict=True)
            ]
        )


@dataclass
class PersistScores(BatchTransform):
    """Writes score items, then each user's latest item and ARM cache entry where newer; counts ``scored``.

    Idempotent: a score's keys come from the activity that caused it, and a late score never replaces a newer one.
    """

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Persist(self.worker, self.backends))


class _Persist(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    def setup(self) -> None:
        self._table = self._backends.open_table()
        self._cache = self._backends.open_cache()

    @override
    def step(self, batch: Batch[ScoredActivity]) -> Batch[ScoredActivity]:
        now = now_ms()
        items = [score_item(scored.message, scored.score, self._worker, now) for scored in batch.items]
        # Of one user's scores in a batch only the newest can end up as the latest.
        newest: dict[str, tuple[str, int]] = {}
        for index, scored in enumerate(batch.items):
            user = scored.message.global_user_id
            version = version_of(scored.message)
            if user not in newest or version > newest[user][0]:
                newest[user] = (version, index)
        self._table.batch_put(items)
        self._table.put_if_newer([(version, latest_item(items[index])) for version, index in newest.values()])
        if self._cache is not None:
            entries = [
                cache_entry(batch.items[index].message, batch.items[index].score) for _, index in newest.values()
            ]
            self._cache.put_if_newer([(entry.key, entry.version, entry.value) for entry in entries])
        count("scored", len(items))
        return batch
