"""Which users a worker is switched on for, and whether it is at all."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from typing_extensions import override

from ..domain.records import Batch
from ..io import steps
from ..io.backends import Backends
from ..io.kill_switch import KillSwitch
from .batches import BatchStep, BatchTransform, count_of, par_do
from .draining import draining


def kill_switch(backends: Backends) -> KillSwitch:
    """The kill switch of the backends' worker, for a source to ask before it reads on."""
    return KillSwitch(backends.worker, backends.open_flags(), partial(count_of, backends.worker), draining)


@dataclass
class KeepUsersOfShare(BatchTransform):
    """Drops what belongs to users the flag server leaves out, counted as ``rejected.flagged_off``.

    Takes batches of decoded records or of messages.
    """

    backends: Backends

    @override
    def expand(self, input_or_inputs: Any) -> Any:
        return input_or_inputs | par_do(_KeepUsersOfShare(self.backends))


class _KeepUsersOfShare(BatchStep):
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    @override
    def setup(self) -> None:
        self._flags = self._backends.open_flags()

    @override
    def step(self, batch: Batch[Any]) -> Batch[Any]:
        return steps.keep_users_of_share(batch, self._flags, self._backends.worker, self.count)
