"""The second half: messages become scores in the table and in the ARM cache.

``DecodeMessages → FetchArai → AddVerifications → ScoreUsers → ApplyImports → PersistScores``; then ``finish.py`` ends
the batch. Every step keeps the queue's order, so a user's messages are scored in the order they were received. For
change records of ARAI responses ``SelectAraiChanges`` stands in the place of the first two.
"""

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..domain.records import Batch, RawRecord
from ..io import persisting, steps
from ..io.backends import Backends
from ..io.fan_verifications import add_verifications
from ..io.ports import ReceivedMessage
from ..io.steps import Profiled, Queued, Scored
from ..io.telemetry.batch_traces import Phase
from .batches import BatchStep, BatchTransform, par_do


@dataclass
class DecodeMessages(BatchTransform):
    """``Batch[ReceivedMessage]`` to ``Batch[Queued]``; see ``steps.decode_messages``."""

    worker: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_DecodeMessages(self.worker))


class _DecodeMessages(BatchStep):
    phase = Phase.INPUT

    def __init__(self, worker: str) -> None:
        self._worker = worker

    @override
    def step(self, batch: Batch[ReceivedMessage]) -> Batch[Queued]:
        return steps.decode_messages(batch, self._worker)


@dataclass
class SelectAraiChanges(BatchTransform):
    """``Batch[RawRecord]`` of change records to ``Batch[Profiled]``; see ``steps.select_arai_changes``."""

    worker: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_SelectAraiChanges(self.worker))


class _SelectAraiChanges(BatchStep):
    phase = Phase.INPUT

    def __init__(self, worker: str) -> None:
        self._worker = worker

    @override
    def step(self, batch: Batch[RawRecord]) -> Batch[Profiled]:
        return steps.select_arai_changes(batch, self._worker, self.count)


@dataclass
class FetchArai(BatchTransform):
    """Adds to each message what is known of its user as of the message's activity: ``Batch[Profiled]``."""

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_FetchArai(self.worker, self.backends))


class _FetchArai(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    @override
    def setup(self) -> None:
        self._arai = self._backends.open_arai()

    @override
    def step(self, batch: Batch[Queued]) -> Batch[Profiled]:
        return steps.fetch_arai(batch, self._arai, self._worker)


@dataclass
class AddVerifications(BatchTransform):
    """Adds to each message what an identity check says of its user as of then: ``Batch[Profiled]``."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_AddVerifications(self.backends))


class _AddVerifications(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    @override
    def setup(self) -> None:
        self._verifications = self._backends.open_verifications()

    @override
    def step(self, batch: Batch[Profiled]) -> Batch[Profiled]:
        return add_verifications(batch, self._verifications)


@dataclass
class ScoreUsers(BatchTransform):
    """Scores each message's user with the model, side by side within a batch: ``Batch[Scored]``."""

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_ScoreUsers(self.worker, self.backends))


class _ScoreUsers(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    @override
    def setup(self) -> None:
        self._model = self._backends.open_model()

    @override
    def step(self, batch: Batch[Profiled]) -> Batch[Scored]:
        return steps.score_users(batch, self._model, self._worker)


@dataclass
class ApplyImports(BatchTransform):
    """Adds to each score what the active imports say of its user: ``Batch[Scored]``."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_ApplyImports(self.backends))


class _ApplyImports(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    @override
    def setup(self) -> None:
        self._imports = self._backends.open_imports()

    @override
    def step(self, batch: Batch[Scored]) -> Batch[Scored]:
        return persisting.apply_imports(batch, self._imports)


@dataclass
class PersistScores(BatchTransform):
    """Writes score items, then each user's latest item and ARM cache entry where newer; counts ``scored``.

    Idempotent: a score's keys come from the activity that caused it, and a late score never replaces a newer one. None
    stays under imports that are no longer active; see ``persisting.persist``.
    """

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_PersistScores(self.worker, self.backends))


class _PersistScores(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    @override
    def setup(self) -> None:
        self._table = self._backends.open_table()
        self._cache = self._backends.open_cache()
        self._imports = self._backends.open_imports()

    @override
    def step(self, batch: Batch[Scored]) -> Batch[Scored]:
        return persisting.persist(batch, self._table, self._cache, self._imports, self._worker, self.count)
