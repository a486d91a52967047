"""The workers by name. Adding one is adding a line here (see ``docs/adding-a-worker.md``)."""

from dataclasses import dataclass
from enum import Enum

from .errors import UsageError


class Kind(Enum):
    """Which flow a worker runs."""

    ENQUEUE = "enqueue"
    SCORE = "score"
    RESCORE = "rescore"
    VERIFY = "verify"
    LIVENESS = "liveness"


@dataclass(frozen=True)
class Worker:
    """A worker of the reference.

    Attributes:
        name: as in the reference.
        kind: which pipeline it runs.
        summary: one line for ``--help``.
        queue_setting: the setting that names the queue it sends to (ENQUEUE) or receives from (all others; LIVENESS has
            none and asks all).
        queue_name: of that queue where one store holds all.
        table_setting: the setting that names the table it writes.
        table_name: of that table where one store holds all.
        model_setting: the setting that names its model.
        writes_cache: whether it writes the ARM cache.
        keeps_order: whether what it sends has to stay in order per user: then its queue is FIFO, else it must not be.
            None for a worker that sends nothing.
        feeds_staging: whether it sends to the staging worker's queue too, where there is one.
    """

    name: str
    kind: Kind
    summary: str
    queue_setting: str = "queue"
    queue_name: str = "accountActivityQueue"
    table_setting: str = "table"
    table_name: str = "fanIdentityTable"
    model_setting: str = "model"
    writes_cache: bool = True
    keeps_order: bool | None = None
    feeds_staging: bool = False


def _enqueuing(name: str, what: str) -> Worker:
    return Worker(name, Kind.ENQUEUE, f"{what} to accountActivityQueue", keeps_order=True, feeds_staging=True)


WORKERS: dict[str, Worker] = {
    worker.name: worker
    for worker in (
        _enqueuing("enqueueFromStream", "user activities"),
        _enqueuing("enqueueFromPurchaseStream", "purchases"),
        _enqueuing("enqueueFromVfStream", "VerifiedFan events"),
        _enqueuing("enqueueFromSQJourneyStream", "journey events"),
        Worker(
            "enqueueFromDemandStream",
            Kind.ENQUEUE,
            "demand events to onDemandScoringQueue",
            queue_setting="on_demand_queue",
            queue_name="onDemandScoringQueue",
            keeps_order=False,
        ),
        Worker(
            "scoreUsers", Kind.SCORE, "queued activities, or ARAI changes, to the fan identity table and the ARM cache"
        ),
        Worker(
            "stagingScoreUsers",
            Kind.SCORE,
            "the same with the staging model, to the staging table",
            queue_setting="staging_queue",
            queue_name="stagingAccountActivityQueue",
            table_setting="staging_table",
            table_name="stagingFanIdentityTable",
            model_setting="staging_model",
            writes_cache=False,
        ),
        Worker(
            "processRescoreEvents",
            Kind.RESCORE,
            "rescore requests: users, a cluster, or everyone a model scored",
            queue_setting="rescore_queue",
            queue_name="rescoreQueue",
        ),
        Worker(
            "handleEvent",
            Kind.VERIFY,
            "events by their type: identity checks to the verification table and the Identity Service, entries to "
            "profiles",
            queue_setting="identity_queue",
            queue_name="identityEventQueue",
            table_setting="verification_table",
            table_name="verificationTable",
            writes_cache=False,
        ),
        Worker("checkLiveness", Kind.LIVENESS, "probes of every part, and alerts, on a schedule", writes_cache=False),
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
