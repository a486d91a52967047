"""The report of a run: one HTML file that needs nothing else, for a risk analyst who has never seen the tool.

Whatever names something in the data (user ids first of all) is hostile: it is shortened and its control characters are
made visible (``shown``), then escaped by Jinja, and in plots, where plotly reads HTML-like tags, by ``label``. A
content security policy in the page forbids it to load anything, come what may.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2
import plotly.offline  # pyright: ignore[reportMissingTypeStubs] - it has none

from ..domain.scorecard import ARM_LEVELS, describe
from ..domain.scores import stored_reasons
from ..io.ports import Item
from ..io.whole_files import write_whole
from .report_charts import (
    RISKY_ARM,
    Chart,
    arm_chart,
    books,
    books_chart,
    histogram,
    reasons_chart,
    roc_chart,
    score_of,
    waterfall,
)
from .report_text import count, percent, shown, words
from .report_time_chart import time_chart
from .score_files import ScoreRun
from .separation import FAN, Separation
from .summary import Summary

if TYPE_CHECKING:
    from .weak_label import WeakLabelReport

_RISKIEST: Final = 20
_TOP_REASONS: Final = 3


def write_report(
    path: Path,
    run: ScoreRun,
    summary: Summary,
    *,
    separation: Separation | None = None,
    weak_label: "WeakLabelReport | None" = None,
    title: str = "Fans and bots: what the scores say",
) -> None:
    """Writes the report, wholly or not at all: an older one stays until the new one is complete.

    Args:
        path: of the HTML file.
        run: what the run did.
        summary: the store's users by their latest score.
        separation: the scores held against the truth, where it is known.
        weak_label: the scores held against self-declared crawlers, where the input was an access log.
        title: the page's heading.

    Raises:
        UsageError: the file cannot be written.
    """
    page = render_report(run, summary, separation=separation, weak_label=weak_label, title=title)
    write_whole(path, page.encode(), "report")


def render_report(
    run: ScoreRun,
    summary: Summary,
    *,
    separation: Separation | None,
    weak_label: "WeakLabelReport | None",
    title: str,
) -> str:
    """The report as HTML; the arguments are those of ``write_report``."""
    items = [summary.latest[user] for user in sorted(summary.latest, key=lambda u: (score_of(summary.latest[u]), u))]
    risky = [item for item in items if item["armRisk"] >= RISKY_ARM]
    kinds: Mapping[str, str] = separation.kinds if separation else {}
    charts = [books_chart(run.ledger)]
    if items:
        charts += [arm_chart(summary), histogram(items, separation), *time_chart(items), *reasons_chart(risky)]
    if separation:
        charts += [roc_chart(separation)]
    examples = _examples(items, kinds)
    charts += [chart for _, chart in examples]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(shown=shown, words=words, count=count, percent=percent, describe=describe)
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        run=run,
        ledger=run.ledger,
        came_in=run.ledger.read + run.ledger.waiting_before,
        books=books(run.ledger),
        users=summary.users,
        risky=len(risky),
        arms=_arm_rows(items),
        riskiest=[_user_row(item, kinds) for item in items[:_RISKIEST]],
        examples=examples,
        separation=separation,
        weak_label=weak_label,
        models=sorted({item["modelVersion"] for item in items})[:5],
        last_activity=max((item["occurredAt"] for item in items), default=None),
        charts={chart.name: chart for chart in charts},
        figures={chart.name: {"data": chart.data, "layout": chart.layout} for chart in charts},
        plotly_js=plotly.offline.get_plotlyjs(),
    )


def _arm_rows(items: Sequence[Item]) -> list[tuple[int, int, float, float]]:
    """Of each ARM: the level, its users, their lowest and highest account score."""
    scores: dict[int, list[float]] = defaultdict(list)
    for item in items:
        scores[item["armRisk"]].append(score_of(item))
    return [(arm, len(of_arm), min(of_arm), max(of_arm)) for arm, of_arm in sorted(scores.items())]


def _user_row(item: Item, kinds: Mapping[str, str]) -> dict[str, Any]:
    reasons = stored_reasons(item)
    activities = next((reason.value for reason in reasons if reason.code == "ACTIVITY_VOLUME"), None)
    return {
        "user": item["globalUserId"],
        "kind": kinds.get(item["globalUserId"]),
        "score": score_of(item),
        "arm": item["armRisk"],
        "bon": item["bonScore"],
        "activities": None if activities is None else int(activities),
        "reasons": reasons[:_TOP_REASONS],
    }


def _examples(items: Sequence[Item], kinds: Mapping[str, str]) -> list[tuple[dict[str, Any], Chart]]:
    """The most bot-like user, the most fan-like, and one in between; fewer where there are fewer."""
    if not items:
        return []
    # Where the truth is known, a bot stands for the bots and a fan for the fans.
    lowest = next((item for item in items if kinds.get(item["globalUserId"], FAN) != FAN), items[0])
    highest = next((item for item in reversed(items) if kinds.get(item["globalUserId"]) == FAN), items[-1])
    middle = [item for item in items if item["armRisk"] == (1 + ARM_LEVELS) // 2] or items
    between = middle[len(middle) // 2]
    chosen: dict[str, tuple[str, Item]] = {}
    for name, item in (("A clear bot", lowest), ("A clear fan", highest), ("In between", between)):
        chosen.setdefault(item["globalUserId"], (name, item))
    return [
        ({"name": name, "all_reasons": stored_reasons(item), **_user_row(item, kinds)}, waterfall(number, item))
        for number, (name, item) in enumerate(sorted(chosen.values(), key=lambda entry: score_of(entry[1])))
    ]
