"""Rescoring: requests become scores of everyone they name."""

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..domain.records import Batch
from ..io.backends import Backends
from ..io.pacing import pacer_of
from ..io.ports import ReceivedMessage
from ..io.rescoring import Rescoring
from .batches import BatchStep, BatchTransform, par_do
from .flags import kill_switch


@dataclass
class RescoreUsers(BatchTransform):
    """Works off ``Batch[ReceivedMessage]`` of rescore requests; counts ``scored`` and ``requests``."""

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_RescoreUsers(self.worker, self.backends))


class _RescoreUsers(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    @override
    def setup(self) -> None:
        backends = self._backends
        pacer, switch = pacer_of(backends.rescore_rate), kill_switch(backends)
        self._rescoring = Rescoring.of(self._worker, backends, pacer, switch)

    @override
    def step(self, batch: Batch[ReceivedMessage]) -> Batch[ReceivedMessage]:
        return self._rescoring.rescore(batch, self.count)
