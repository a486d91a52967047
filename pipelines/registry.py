"""The workers by name. Adding one is adding a line here (see ``docs/adding-a-worker.md``)."""

from dataclasses import dataclass
from enum import Enum

from ..io.errors import UsageError


class Kind(Enum):
    """Which half of the flow a worker runs."""

    ENQUEUE = "enqueue"
    SCORE = "score"


@dataclass(frozen=True)
class Worker:
    """A worker of the reference.

    Attributes:
        name: as in the reference.
        kind: which pipeline it runs.
        summary: one line for ``--help``.
    """

    name: str
    kind: Kind
    summary: str


WORKERS: dict[str, Worker] = {
    worker.name: worker
    for worker in (
        Worker("enqueueFromStream", Kind.ENQUEUE, "user activities to accountActivityQueue"),
        Worker("enqueueFromPurchaseStream", Kind.ENQUEUE, "purchases to accountActivityQueue"),
        Worker("enqueueFromVfStream", Kind.ENQUEUE, "VerifiedFan events to accountActivityQueue"),
        Worker("enqueueFromSQJourneyStream", Kind.ENQUEUE, "journey events to accountActivityQueue"),
        Worker("scoreUsers", Kind.SCORE, "accountActivityQueue to the fan identity table and the ARM cache"),
    )
}


def worker_named(name: str) -> Worker:
    """Looks a worker up.

    Raises:
        UsageError: there is none of that name; the error lists those there are.
    """
    worker = WORKERS.get(name)
    if worker is None:
        raise UsageError(f"there is no worker {name!r}; the workers are: {', '.join(WORKERS)}")
    return worker
