"""Identity verification results: decoded, then stored and told."""

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..domain.records import Batch
from ..io import verifying
from ..io.backends import Backends
from ..io.ports import ReceivedMessage
from ..io.verifying import Verified
from .batches import BatchStep, BatchTransform, par_do


@dataclass
class DecodeVerifications(BatchTransform):
    """``Batch[ReceivedMessage]`` to ``Batch[Verified]``; see ``verifying.decode_verifications``."""

    worker: str

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Decode(self.worker))


class _Decode(BatchStep):
    def __init__(self, worker: str) -> None:
        self._worker = worker

    @override
    def step(self, batch: Batch[ReceivedMessage]) -> Batch[Verified]:
        return verifying.decode_verifications(batch, self._worker)


@dataclass
class StoreVerifications(BatchTransform):
    """Stores results and tells the Identity Service; counts ``stored``."""

    worker: str
    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Store(self.worker, self.backends))


class _Store(BatchStep):
    def __init__(self, worker: str, backends: Backends) -> None:
        self._worker = worker
        self._backends = backends

    def setup(self) -> None:
        self._table = self._backends.open_table()
        self._identity = self._backends.open_identity()

    @override
    def step(self, batch: Batch[Verified]) -> Batch[Verified]:
        return verifying.store_verifications(batch, self._table, self._identity, self._worker, self.count)
