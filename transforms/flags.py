"""Which users a worker is switched on for."""

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from ..domain.records import Batch
from ..io import steps
from ..io.backends import Backends
from .batches import BatchStep, BatchTransform, par_do


@dataclass
class KeepUsersOfShare(BatchTransform):
    """Drops what belongs to users the flag server leaves out, counted as ``rejected.flagged_off``.

    Takes batches of decoded records or of messages.
    """

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_Keep(self.backends))


class _Keep(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    def setup(self) -> None:
        self._flags = self._backends.open_flags()

    @override
    def step(self, batch: Batch[Any]) -> Batch[Any]:
        return steps.keep_users_of_share(batch, self._flags, self._backends.worker, self.count)
