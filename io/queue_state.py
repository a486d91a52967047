"""How much waits in a queue that is open; ``queue_contents`` tells more, of an address."""

from ..domain.flow import QueueState
from .errors import UsageError
from .ports import MessageQueue
from .sqlite.queue import SqliteQueue


def queue_state(queue: MessageQueue) -> QueueState:
    """How many messages wait, and how long the oldest has, as far as the queue tells.

    SQS and Pub/Sub tell no age but to CloudWatch and Cloud Monitoring; Pub/Sub no number either.

    Raises:
        BackendUnavailableError: the queue is out of reach.
    """
    if isinstance(queue, SqliteQueue):
        return QueueState(queue.depth(), queue.oldest_ms() or 0)
    try:
        return QueueState(queue.depth())
    except UsageError:
        return QueueState()
