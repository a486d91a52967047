"""What a store says about its users: the figures for the terminal and the report."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..domain.keys import LATEST_SK
from ..io.backends import Backends
from ..io.ports import Item


@dataclass(frozen=True)
class Summary:
    """The users of a store by their latest score.

    Attributes:
        latest: each user's latest item, by user id.
        arm_distribution: users by ARM, 1 to 5.
    """

    latest: Mapping[str, Item]
    arm_distribution: Mapping[int, int]

    @property
    def users(self) -> int:
        """How many users have a score."""
        return len(self.latest)

    @property
    def bon_scores(self) -> Mapping[str, float]:
        """Each user's bot-or-not score, 0 to 1."""
        return {user: item["bonScore"] for user, item in self.latest.items()}


def arm_distribution(backends: Backends) -> dict[int, int]:
    """Users by ARM, 1 to 5, counted without holding them in memory.

    Raises:
        BackendUnavailableError: the table cannot be read.
    """
    arms = Counter(item["armRisk"] for item in backends.open_sqlite_table().scan(LATEST_SK))
    return {arm: arms[arm] for arm in range(1, 6)}


def summarize(backends: Backends) -> Summary:
    """Reads every user's latest item: about 2 kB of memory a user.

    Raises:
        BackendUnavailableError: the table cannot be read.
    """
    latest = {item["globalUserId"]: item for item in backends.open_sqlite_table().scan(LATEST_SK)}
    arms = Counter(item["armRisk"] for item in latest.values())
    return Summary(latest, {arm: arms[arm] for arm in range(1, 6)})
