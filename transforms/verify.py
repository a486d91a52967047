"""Events: decoded, each by its consumer, then consumed."""

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..domain.records import Batch
from ..io import consuming
from ..io.backends import Backends
from ..io.consuming import ReceivedEvent
from ..io.event_consumers import EventStores
from ..io.ports import ReceivedMessage
from ..io.telemetry.batch_traces import Phase
from .batches import BatchStep, BatchTransform, par_do


@dataclass
class DecodeEvents(BatchTransform):
    """``Batch[ReceivedMessage]`` to ``Batch[ReceivedEvent]``; see ``consuming.decode_events``."""

    worker: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_DecodeEvents(self.worker))


class _DecodeEvents(BatchStep):
    phase = Phase.INPUT

    def __init__(self, worker: str) -> None:
        self._worker = worker

    @override
    def step(self, batch: Batch[ReceivedMessage]) -> Batch[ReceivedEvent]:
        return consuming.decode_events(batch, self._worker)


@dataclass
class KeepEventsOfShare(BatchTransform):
    """Drops events of users the flag server leaves out, counted as ``rejected.flagged_off``."""

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_KeepEventsOfShare(self.backends))


class _KeepEventsOfShare(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    @override
    def setup(self) -> None:
        self._flags = self._backends.open_flags()

    @override
    def step(self, batch: Batch[ReceivedEvent]) -> Batch[ReceivedEvent]:
        return consuming.keep_events_of_share(batch, self._flags, self._backends.worker, self.count)


@dataclass
class ConsumeEvents(BatchTransform):
    """Lets events have their effect; counts ``stored``, ``stale``, ``deduplicated``. See ``consuming``."""

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_ConsumeEvents(self.worker, self.backends))


class _ConsumeEvents(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    @override
    def setup(self) -> None:
        self._stores = EventStores.of(self._backends)

    @override
    def step(self, batch: Batch[ReceivedEvent]) -> Batch[ReceivedEvent]:
        return consuming.consume_events(batch, self._stores, self._worker, self.count)
