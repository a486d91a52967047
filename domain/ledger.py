"""The books of a run: every record that came in is accounted for, or the run says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field

REJECTED = "rejected."
DEAD_LETTERED = "dead_lettered."


@dataclass(frozen=True)
class Ledger:
    """Counts of one bounded run.

    Attributes:
        read: records read from the input.
        waiting_before: messages an earlier run left in the queue.
        rejected: activities not scorable, by reason.
        deduplicated: activities sent before.
        enqueued: messages put into the queue.
        scored: scores persisted.
        dead_lettered: records given up on, by reason.
        waiting_after: messages still in the queue.
        skipped: how often the worker was switched off by its flag meanwhile; records it does not touch.
    """

    read: int = 0
    waiting_before: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict[str, int])
    deduplicated: int = 0
    enqueued: int = 0
    scored: int = 0
    dead_lettered: Mapping[str, int] = field(default_factory=dict[str, int])
    waiting_after: int = 0
    skipped: int = 0

    @classmethod
    def of(cls, counts: Mapping[str, int], *, waiting_before: int, waiting_after: int) -> "Ledger":
        """Reads the books from the counters of ``transforms``.

        Args:
            counts: by counter name, such as ``rejected.too_old``.
            waiting_before: messages in the queue when the run began.
            waiting_after: messages in the queue when it ended.
        """
        return cls(
            read=counts.get("read", 0),
            waiting_before=waiting_before,
            rejected=_under(REJECTED, counts),
            deduplicated=counts.get("deduplicated", 0),
            enqueued=counts.get("enqueued", 0),
            scored=counts.get("scored", 0),
            dead_lettered=_under(DEAD_LETTERED, counts),
            waiting_after=waiting_after,
            skipped=counts.get("skipped", 0),
        )

    @property
    def total_rejected(self) -> int:
        """Rejections of every reason."""
        return sum(self.rejected.values())

    @property
    def total_dead_lettered(self) -> int:
        """Dead letters of every reason."""
        return sum(self.dead_lettered.values())

    @property
    def unaccounted(self) -> int:
        """Records that came in and are nowhere: 0, or the run lost (above) or made up (below) records.

        What came in is read or was waiting; what became of it is rejected, deduplicated, scored, dead-lettered, or
        waits still.
        """
        came_in = self.read + self.waiting_before
        went_out = self.total_rejected + self.deduplicated + self.scored + self.total_dead_lettered
        return came_in - went_out - self.waiting_after


def _under(prefix: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {
        name.removeprefix(prefix): count for name, count in sorted(counts.items()) if name.startswith(prefix) and count
    }
