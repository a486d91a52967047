"""A weak label for access logs: crawlers that name themselves in their user agent.

Many bots hide, so this label misses them; but those that do name themselves are bots. No activity carries the user
agent (the user id holds its family, and models do not read ids), so scores can be held against it honestly. A score
that is worth something must beat two baselines computed from the same log: the user's request rate, and a constant.

Source of the patterns: github.com/monperrus/crawler-user-agents (MIT).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from crawleruseragents import is_crawler  # pyright: ignore[reportMissingTypeStubs] - it has none

from ..domain.metrics import precision_at, roc_auc
from ..io.access_log import LogLine, agent_of, parse_line, user_of
from ..io.files import FileFormat, plan_ranges, read_range

_MINUTE_MS = 60_000


@dataclass(slots=True)
class UserRequests:
    """What a log says of one user.

    Attributes:
        requests: how many.
        crawler_requests: how many of them named a crawler as their user agent.
        first_ms: the time of the earliest, epoch milliseconds.
        last_ms: the time of the latest.
    """

    requests: int
    crawler_requests: int
    first_ms: int
    last_ms: int

    @property
    def is_crawler(self) -> bool:
        """True where most of the requests named a crawler."""
        return 2 * self.crawler_requests > self.requests

    @property
    def requests_per_minute(self) -> float:
        """Requests by the minutes from the first to the last one, at least one minute."""
        return self.requests / max(1.0, (self.last_ms - self.first_ms) / _MINUTE_MS)


@dataclass(frozen=True, slots=True)
class WeakLabelReport:
    """How scores compare with the weak label. The areas are None where all users have the same label.

    Attributes:
        requests: requests of the log that could be read.
        unreadable: lines that could not.
        users: users of the log that have a score; everything below is about them.
        users_without_score: the log's other users.
        crawlers: users most of whose requests named a crawler.
        auc: area under the ROC curve of the scores.
        auc_requests_per_minute: of the users' request rates.
        auc_constant: of one score for all, 0.5.
        precision_at_crawler_share: the share of crawlers among the users with the greatest scores, as many of them as
            there are crawlers. None where there are none.
    """

    requests: int
    unreadable: int
    users: int
    users_without_score: int
    crawlers: int
    auc: float | None
    auc_requests_per_minute: float | None
    auc_constant: float | None
    precision_at_crawler_share: float | None


@lru_cache(maxsize=8_192)
def names_crawler(agent: str) -> bool:
    """True where a user agent names a known crawler, by case-sensitive pattern; "" does not."""
    return is_crawler(agent)


def requests_by_user(lines: Iterable[LogLine]) -> dict[str, UserRequests]:
    """Counts requests by user (``user_of``), in any order of the lines."""
    users: dict[str, UserRequests] = {}
    for line in lines:
        crawler = names_crawler(agent_of(line))
        user = users.get(name := user_of(line))
        if user is None:
            users[name] = UserRequests(1, int(crawler), line.time_ms, line.time_ms)
            continue
        user.requests += 1
        user.crawler_requests += crawler
        user.first_ms = min(user.first_ms, line.time_ms)
        user.last_ms = max(user.last_ms, line.time_ms)
    return users


def crawlers(paths: Sequence[str]) -> dict[str, bool]:
    """The weak label of each user of access logs: True for a crawler.

    Raises:
        UsageError: a file is missing or cannot be read.
        BackendUnavailableError: a file vanished while it was read.
    """
    return {name: user.is_crawler for name, user in requests_by_user(_Log(paths)).items()}


def evaluate_access_log(paths: Sequence[str], scores: Mapping[str, float]) -> WeakLabelReport:
    """Holds bot scores against the weak label of access logs.

    Lines that occur twice are two requests here, as they are for the server.

    Args:
        paths: access logs.
        scores: by user id as ``access_log.activity_of`` makes it; greater means more bot-like.

    Raises:
        UsageError: a file is missing or cannot be read.
        BackendUnavailableError: a file vanished while it was read.
        ValueError: a score is NaN.
    """
    log = _Log(paths)
    users = requests_by_user(log)
    scored = {name: user for name, user in users.items() if name in scores}
    labels = [user.is_crawler for user in scored.values()]
    given = [scores[name] for name in scored]
    bots = sum(labels)
    return WeakLabelReport(
        requests=sum(user.requests for user in users.values()),
        unreadable=log.unreadable,
        users=len(scored),
        users_without_score=len(users) - len(scored),
        crawlers=bots,
        auc=_auc(labels, given),
        auc_requests_per_minute=_auc(labels, [user.requests_per_minute for user in scored.values()]),
        auc_constant=_auc(labels, [0.0] * len(labels)),
        precision_at_crawler_share=precision_at(labels, given, bots / len(labels)) if bots else None,
    )


def _auc(labels: list[bool], scores: list[float]) -> float | None:
    return roc_auc(labels, scores) if any(labels) and not all(labels) else None


class _Log:
    """The lines of access logs, one after the other; counts those that cannot be read."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self.unreadable = 0

    def __iter__(self) -> Iterator[LogLine]:
        for part in plan_ranges(self._paths, FileFormat.ACCESS_LOG):
            for batch in read_range(part):
                for record in batch:
                    if record.error is None:
                        yield parse_line(record.payload)
                    else:
                        self.unreadable += 1
