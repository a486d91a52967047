"""The report's plot of scores over time."""

from collections import defaultdict
from collections.abc import Sequence
from math import ceil
from typing import Final

from ..domain.activity import format_time_ms, parse_time_ms
from ..domain.scorecard import MAX_SCORE
from ..io.ports import Item
from .report_charts import BLUE, Chart, quantile, score_of

_MINUTE: Final = 60_000
_BUCKETS: Final = {
    "minute": _MINUTE,
    "5 minutes": 5 * _MINUTE,
    "15 minutes": 15 * _MINUTE,
    "hour": 60 * _MINUTE,
    "6 hours": 360 * _MINUTE,
    "day": 1_440 * _MINUTE,
    "week": 10_080 * _MINUTE,
    "30 days": 43_200 * _MINUTE,
}
_MOST_BUCKETS: Final = 100
_ENOUGH: Final = 10  # users; fewer make no percentiles


def time_chart(items: Sequence[Item]) -> list[Chart]:
    """The middle score, and the band around it, by the time of the users' latest activity."""
    timed = sorted((parse_time_ms(item["occurredAt"]), score_of(item)) for item in items)
    # A few users last seen years ago would squeeze all others into one bucket.
    early, late = timed[len(timed) // 100][0], timed[-1 - len(timed) // 100][0]
    reach = max(late - early, _MINUTE)
    kept = [pair for pair in timed if early - 3 * reach <= pair[0] <= late + 3 * reach]
    bucket, width = _bucket(kept[-1][0] - kept[0][0], len(kept))
    by_bucket: dict[int, list[float]] = defaultdict(list)
    for time_ms, score in kept:
        by_bucket[time_ms // width * width].append(score)
    enough = min(_ENOUGH, max(map(len, by_bucket.values())))
    rows = [(start, sorted(scores)) for start, scores in sorted(by_bucket.items()) if len(scores) >= enough]
    times = [format_time_ms(start)[:19] for start, _ in rows]
    low, middle, high = ([quantile(scores, share) for _, scores in rows] for share in (0.1, 0.5, 0.9))
    lowest, highest = (choose(range(len(rows)), key=lambda index: middle[index]) for choose in (min, max))
    when = times[lowest][:16].replace("T", " ")
    title = f"The middle score was lowest at {when} UTC ({middle[lowest]:.0f}) and at most {middle[highest]:.0f} points"
    if len(rows) == 1:
        title = f"The middle user scores {middle[lowest]:.0f} points"
    left_out = len(timed) - sum(len(scores) for _, scores in rows)
    mode = "lines" if len(rows) > 1 else "markers"
    edge = {"type": "scatter", "mode": mode, "x": times, "line": {"width": 0.5, "color": BLUE}, "hoverinfo": "skip"}
    return [
        Chart(
            "time",
            title,
            f"Each user counts once, at their latest activity, by {bucket}; eight of ten users score within the "
            "band." + (f" Left out: {left_out:,} users last seen when hardly anybody was." if left_out else ""),
            340,
            [
                {**edge, "name": "10 % score below", "y": low, "showlegend": False},
                {
                    **edge,
                    "name": "10 to 90 % of users",
                    "y": high,
                    "fill": "tonexty",
                    "fillcolor": "rgba(59,130,191,.25)",
                },
                {
                    "type": "scatter",
                    "mode": mode,
                    "name": "middle user (median)",
                    "x": times,
                    "y": middle,
                    "line": {"width": 2.5, "color": BLUE},
                    "customdata": [f"{len(scores):,}" for _, scores in rows],
                    "hovertemplate": "%{x|%Y-%m-%d %H:%M}: %{y:.1f} points, %{customdata} users<extra></extra>",
                },
            ],
            {
                "showlegend": True,
                "xaxis": {"type": "date", "title": {"text": "time of the latest activity (UTC)"}},
                "yaxis": {"title": {"text": "account score (points)"}, "range": [0, MAX_SCORE]},
            },
        )
    ]


def _bucket(span_ms: int, users: int) -> tuple[str, int]:
    """The name and width of the narrowest bucket that leaves few enough buckets, with enough users in them."""
    most = max(1, min(_MOST_BUCKETS, users // (2 * _ENOUGH)))
    for name, width in _BUCKETS.items():
        if span_ms <= most * width:
            return name, width
    months = ceil(span_ms / most / _BUCKETS["30 days"])
    return f"{30 * months:,} days", months * _BUCKETS["30 days"]
