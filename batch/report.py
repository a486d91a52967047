"""The report of a run: one HTML file that needs nothing else, for a risk analyst who has never seen the tool.

Whatever names something in the data (user ids first of all) is hostile: it is shortened and its control characters are
made visible (``_shown``), then escaped by Jinja, and in plots, where plotly reads HTML-like tags, by ``_label``. A
content security policy in the page forbids it to load anything, come what may.
"""

import contextlib
import hashlib
import html
import os
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2
import plotly.offline  # pyright: ignore[reportMissingTypeStubs] - it has none

from ..domain.activity import format_time_ms, parse_time_ms
from ..domain.ledger import Ledger
from ..domain.scorecard import ARM_LEVELS, MAX_SCORE, Reason, describe
from ..domain.scores import stored_reasons
from ..io.errors import UsageError
from ..io.ports import Item
from .score_files import ScoreRun
from .separation import FAN, Separation
from .summary import Summary

if TYPE_CHECKING:
    from .weak_label import WeakLabelReport

RISKY_ARM: Final = 4
"""Users at this ARM or above are called risky."""

_RISKIEST: Final = 20
_STRONGEST: Final = 10
_TOP_REASONS: Final = 3
_BIN: Final = 2  # points of account score a bar of the histogram
_SHOWN: Final = 48  # characters of a name from outside
_SHOWN_IN_PLOTS: Final = 22

# Paul Tol and ColorBrewer (RdBu): told apart with any colour blindness, and in grey, on white and on black.
_BLUE, _RED, _GREY = "#3b82bf", "#d1603d", "#8a93a0"
_PALE_BLUE, _AMBER = "#9ecae1", "#e0a030"
_ARM_COLOURS: Final = ("#2f6fab", "#7fb2d6", "#b5bac2", "#ec9a72", "#b93a32")

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

_WORDS: Final[Mapping[str, str]] = {
    "unknown_type": "not a kind of activity that is scored",
    "blank_user": "no user id",
    "too_old": "too old, or a broken clock",
    "in_future": "in the future",
    "internal_account": "the seller's own accounts",
    "malformed": "not a valid activity",
    "unreadable": "could not be read",
    "too_many_receives": "given up after too many attempts",
    "ACTIVITY_VOLUME": "Activities on record",
    "ACTIVITY_RATE": "Activities a minute",
    "BURST_IN_LAST_MINUTE": "Burst, last minute",
    "BURST_IN_LAST_TEN_MINUTES": "Burst, last 10 minutes",
    "REGULAR_INTERVALS": "Clockwork intervals",
    "FASTER_THAN_A_PERSON": "Faster than a person",
    "SESSION_BREAKS": "Breaks between visits",
    "ADDRESS_COUNT": "Network addresses",
    "DEVICE_COUNT": "Devices",
    "EVENT_COUNT": "Events looked at",
    "FAILED_ATTEMPTS": "Failed attempts",
    "LOGIN_SHARE": "Share of logins",
    "SEARCH_SHARE": "Share of searches",
    "PURCHASE_SHARE": "Share of purchase steps",
    "ASSET_LOADS": "Images and scripts",
    "ACTIVITY_VARIETY": "Kinds of activity",
    "HOURS_OF_DAY": "Hours of the day",
    "REPEATS_ITSELF": "Same thing repeated",
}
"""Short plain names of codes. A code that is not here, as another model may send, is shown as it is."""


@dataclass(frozen=True)
class Chart:
    """A plot: the finding as its title, and plotly's own data and layout, which the page's script draws."""

    name: str
    title: str
    note: str
    height: int
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]


def check_report_path(path: Path) -> None:
    """Says early, before a long run, that a report cannot be written there.

    Raises:
        UsageError: the folder is missing or not writable, or the path is no regular file.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"--report: {path} is not a file")  # a folder; or /dev/null, which must not be replaced
    if not path.parent.is_dir():
        raise UsageError(f"--report: cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"--report: cannot write {path}: the folder is not writable")


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
    try:
        check_report_path(path)
        target = path.resolve()  # a link stays one
        temporary = target.with_name(f".report-{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                file.write(page)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError, RuntimeError) as error:  # the latter two: a NUL in the name, links in a circle
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--report: cannot write {path}: {reason}") from None


def render_report(
    run: ScoreRun,
    summary: Summary,
    *,
    separation: Separation | None,
    weak_label: "WeakLabelReport | None",
    title: str,
) -> str:
    """The report as HTML; the arguments are those of ``write_report``."""
    items = [summary.latest[user] for user in sorted(summary.latest, key=lambda u: (_score(summary.latest[u]), u))]
    risky = [item for item in items if item["armRisk"] >= RISKY_ARM]
    kinds: Mapping[str, str] = separation.kinds if separation else {}
    charts = [_books_chart(run.ledger)]
    if items:
        charts += [_arm_chart(summary), _histogram(items, separation), *_time_chart(items), *_reasons_chart(risky)]
    if separation:
        charts += [_roc_chart(separation)]
    examples = _examples(items, kinds)
    charts += [chart for _, chart in examples]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(shown=_shown, words=_words, count=_count, percent=_percent, describe=describe)
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        run=run,
        ledger=run.ledger,
        came_in=run.ledger.read + run.ledger.waiting_before,
        books=_books(run.ledger),
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


def _shown(text: object, limit: int = _SHOWN) -> str:
    """Text from outside for people: control characters made visible, at most ``limit`` characters long.

    What is cut ends in a part of its hash, so that two different texts stay different.
    """
    whole = str(text)
    visible = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in whole[: limit + 1]
    )
    if len(visible) <= limit:
        return visible
    ending = f"… #{hashlib.sha256(whole.encode(errors='surrogatepass')).hexdigest()[:8]}"
    return visible[: limit - len(ending)] + ending


def _label(text: str) -> str:
    """A name as plotly may show it: short enough beside a plot on a phone, and without its HTML-like tags."""
    return html.escape(_shown(text, _SHOWN_IN_PLOTS), quote=False)


def _words(code: str) -> str:
    return _WORDS.get(code, code)


def _count(number: int) -> str:
    return f"{number:,}"


def _percent(share: float) -> str:
    """A share of 1 in per cent; only all is 100 %, and only nothing is 0 %."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    percent = share * 100
    shown = f"{percent:.2f}" if percent < 1 else f"{percent:.1f}"
    return {"0.00": "under 0.01 %", "100.0": "over 99.9 %"}.get(shown, f"{shown} %")


def _score(item: Item) -> float:
    return float(item["accountScore"])


def _of(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def _books(ledger: Ledger) -> list[tuple[str, str, int, str, Mapping[str, int]]]:
    """What became of the records: name, meaning, number, colour, and the number by reason."""
    rows: list[tuple[str, str, int, str, Mapping[str, int]]] = [
        ("Scored", "a score was stored", ledger.scored, _BLUE, {}),
        ("Deduplicated", "had come before", ledger.deduplicated, _PALE_BLUE, {}),
        ("Rejected", "not to be scored", ledger.total_rejected, _GREY, ledger.rejected),
        ("Dead-lettered", "could not be processed; kept to look into", ledger.total_dead_lettered, _RED,
         ledger.dead_lettered),
        ("Waiting", "still in the queue", ledger.waiting_after, _AMBER, {}),
    ]  # fmt: skip
    return [row for row in rows if row[2] or row[0] != "Waiting"]


def _books_chart(ledger: Ledger) -> Chart:
    came_in = ledger.read + ledger.waiting_before
    missing = "every record is accounted for"
    if ledger.unaccounted:
        missing = f"{abs(ledger.unaccounted):,} are unaccounted for"
    return Chart(
        "books",
        f"{_percent(_of(ledger.scored, came_in))} of the records were scored, and {missing}",
        "",
        150,
        [
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "x": [number],
                "y": [""],
                "marker": {"color": colour},
                "hovertemplate": f"{name}: %{{x:,}} records<extra></extra>",
            }
            for name, _, number, colour, _ in _books(ledger)
        ],
        {
            "barmode": "stack",
            "showlegend": True,
            "xaxis": {"title": {"text": "records"}, "tickformat": ",d", "range": [0, max(1, came_in)]},
            "yaxis": {"showticklabels": False},
        },
    )


def _arm_rows(items: Sequence[Item]) -> list[tuple[int, int, float, float]]:
    """Of each ARM: the level, its users, their lowest and highest account score."""
    scores: dict[int, list[float]] = defaultdict(list)
    for item in items:
        scores[item["armRisk"]].append(_score(item))
    return [(arm, len(of_arm), min(of_arm), max(of_arm)) for arm, of_arm in sorted(scores.items())]


def _arm_chart(summary: Summary) -> Chart:
    arms = range(1, ARM_LEVELS + 1)
    counts = [summary.arm_distribution.get(arm, 0) for arm in arms]
    risky = sum(counts[RISKY_ARM - 1 :])
    return Chart(
        "arm",
        f"{_percent(_of(risky, summary.users))} of the users are risky (ARM 4 or 5)",
        "ARM is the account risk. 1: behaves like an ordinary fan. 5: behaves like the bots the model has learnt from.",
        340,
        [
            {
                "type": "bar",
                "x": [str(arm) for arm in arms],
                "y": counts,
                "marker": {"color": list(_ARM_COLOURS)},
                "text": [f"{number:,}<br>{_percent(_of(number, summary.users))}" for number in counts],
                "textposition": "outside",
                "cliponaxis": False,
                "hovertemplate": "ARM %{x}: %{y:,} users<extra></extra>",
            }
        ],
        {
            "xaxis": {
                "type": "category",
                "title": {"text": "ARM"},
                "tickvals": [str(arm) for arm in arms],
                "ticktext": ["1<br>least risk", "2", "3", "4", "5<br>most risk"],
            },
            "yaxis": {"title": {"text": "users"}, "tickformat": ",d", "range": [0, max(counts) * 1.25]},
        },
    )


def _histogram(items: Sequence[Item], separation: Separation | None) -> Chart:
    if separation is None:
        scores = [_score(item) for item in items]
        middle = _quantile(scores, 0.5)
        title = f"Half of the users score above {middle:.0f} of {MAX_SCORE}"
        traces = [_histogram_trace("users", scores, _BLUE, 1.0)]
    else:
        by_truth: dict[bool, list[float]] = {False: [], True: []}
        for item in items:
            if item["globalUserId"] in separation.is_bot:
                by_truth[separation.is_bot[item["globalUserId"]]].append(_score(item))
        fans, bots = by_truth[False], by_truth[True]
        title = f"The middle fan scores {_quantile(fans, 0.5):.0f}, the middle bot {_quantile(bots, 0.5):.0f}"
        traces = [
            _histogram_trace("fans", fans, _BLUE, 100 / len(fans)),
            _histogram_trace("bots", bots, _RED, 100 / len(bots)),
        ]
    return Chart(
        "scores",
        title,
        "The account score runs from 0 (like a bot) to 100 (like a fan)."
        + (" Fans and bots are each drawn as 100 %, though there are far fewer bots." if separation else ""),
        340,
        traces,
        {
            "barmode": "overlay",
            "bargap": 0,
            "showlegend": separation is not None,
            "xaxis": {"title": {"text": "account score (points)"}, "range": [0, MAX_SCORE]},
            "yaxis": {
                "title": {"text": "share of the group (%)" if separation else "users"},
                "tickformat": "" if separation else ",d",
                "rangemode": "tozero",
            },
        },
    )


def _histogram_trace(name: str, scores: Sequence[float], colour: str, weight: float) -> dict[str, Any]:
    bins = [0] * (MAX_SCORE // _BIN)
    for score in scores:
        bins[max(0, min(len(bins) - 1, int(score / _BIN)))] += 1
    return {
        "type": "bar",
        "name": name,
        "x": [index * _BIN + _BIN / 2 for index in range(len(bins))],
        "y": [round(number * weight, 4) for number in bins],
        "width": _BIN,
        "marker": {"color": colour, "opacity": 0.7},
        "customdata": [
            f"{index * _BIN} to {(index + 1) * _BIN} points: {number:,} {name}" for index, number in enumerate(bins)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _time_chart(items: Sequence[Item]) -> list[Chart]:
    timed = sorted((parse_time_ms(item["occurredAt"]), _score(item)) for item in items)
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
    low, middle, high = ([_quantile(scores, share) for _, scores in rows] for share in (0.1, 0.5, 0.9))
    lowest, highest = (choose(range(len(rows)), key=lambda index: middle[index]) for choose in (min, max))
    when = times[lowest][:16].replace("T", " ")
    title = f"The middle score was lowest at {when} UTC ({middle[lowest]:.0f}) and at most {middle[highest]:.0f} points"
    if len(rows) == 1:
        title = f"The middle user scores {middle[lowest]:.0f} points"
    left_out = len(timed) - sum(len(scores) for _, scores in rows)
    mode = "lines" if len(rows) > 1 else "markers"
    edge = {"type": "scatter", "mode": mode, "x": times, "line": {"width": 0.5, "color": _BLUE}, "hoverinfo": "skip"}
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
                    "line": {"width": 2.5, "color": _BLUE},
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


def _reasons_chart(risky: Sequence[Item]) -> list[Chart]:
    points: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for item in risky:
        for reason in stored_reasons(item):
            if reason.points < 0:
                points[reason.code] += reason.points
                counts[reason.code] += 1
    if not points:
        return []
    strongest = sorted(points, key=lambda code: (points[code], code))[:_STRONGEST]
    means = [round(points[code] / len(risky), 2) for code in strongest]
    first = _shown(_words(strongest[0]))
    return [
        Chart(
            "reasons",
            f"“{first}” speaks most against risky users: {-means[0]:.1f} points on average",
            f"Mean over all {len(risky):,} users at ARM 4 or 5; a user without the reason counts as 0. "
            "Only the strongest five reasons are stored with a score.",
            70 + 34 * len(strongest),
            [
                {
                    "type": "bar",
                    "orientation": "h",
                    "x": means,
                    "y": [_label(_words(code)) for code in strongest],
                    "marker": {"color": _RED},
                    "text": [f"\N{MINUS SIGN}{-mean:.1f}" for mean in means],
                    "textposition": "auto",
                    "customdata": [
                        f"{counts[code]:,} users ({_percent(counts[code] / len(risky))})" for code in strongest
                    ],
                    "hovertemplate": "%{y}: %{x} points on average; %{customdata}<extra></extra>",
                }
            ],
            {
                "xaxis": {"title": {"text": "points of account score"}},
                "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
            },
        )
    ]


def _roc_chart(separation: Separation) -> Chart:
    return Chart(
        "roc",
        f"A bot ranks as riskier than a fan in {_percent(separation.roc_auc)} of all pairs",
        f"That share is the area under this curve (AUC). Of the riskiest 1 % of users, "
        f"{_percent(separation.precision_at_1_percent)} are bots; among all users it is "
        f"{_percent(separation.bots / separation.users)}.",
        380,
        [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "account score",
                "x": [round(100 * fans, 3) for fans, _ in separation.roc_curve],
                "y": [round(100 * bots, 3) for _, bots in separation.roc_curve],
                "line": {"color": _BLUE, "width": 2.5},
                "hovertemplate": "%{y:.1f} % of bots caught, %{x:.1f} % of fans flagged<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "lines",
                "name": "guessing",
                "x": [0, 100],
                "y": [0, 100],
                "line": {"color": _GREY, "width": 1.5, "dash": "dash"},
                "hoverinfo": "skip",
            },
        ],
        {
            "showlegend": True,
            "xaxis": {"title": {"text": "fans flagged by mistake (%)"}, "range": [-1, 101]},
            "yaxis": {"title": {"text": "bots caught (%)"}, "range": [-1, 101]},
        },
    )


def _user_row(item: Item, kinds: Mapping[str, str]) -> dict[str, Any]:
    reasons = stored_reasons(item)
    activities = next((reason.value for reason in reasons if reason.code == "ACTIVITY_VOLUME"), None)
    return {
        "user": item["globalUserId"],
        "kind": kinds.get(item["globalUserId"]),
        "score": _score(item),
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
        ({"name": name, "all_reasons": stored_reasons(item), **_user_row(item, kinds)}, _waterfall(number, item))
        for number, (name, item) in enumerate(sorted(chosen.values(), key=lambda entry: _score(entry[1])))
    ]


def _waterfall(number: int, item: Item) -> Chart:
    reasons: list[Reason] = stored_reasons(item)
    steps = [reason.points for reason in reasons] + [item["otherPoints"]]
    names = [
        "Average account",
        *(_label(_words(reason.code)) for reason in reasons),
        "Everything else",
        "Account score",
    ]
    texts = [f"{item['baseScore']:.1f}", *(f"{step:+.1f}".replace("-", "\N{MINUS SIGN}") for step in steps)]
    return Chart(
        f"example{number}",
        f"{_score(item):.1f} of {MAX_SCORE} points, ARM {item['armRisk']}",
        "",
        110 + 30 * len(names),
        [
            {
                "type": "waterfall",
                "orientation": "h",
                "measure": ["absolute", *("relative" for _ in steps), "total"],
                # The same name twice would be one row.
                "y": list(range(len(names))),
                "x": [item["baseScore"], *steps, 0],
                "text": [*texts, f"{_score(item):.1f}"],
                "textposition": "outside",
                "cliponaxis": False,
                "increasing": {"marker": {"color": _BLUE}},
                "decreasing": {"marker": {"color": _RED}},
                "totals": {"marker": {"color": _GREY}},
                "connector": {"line": {"color": _GREY, "width": 1}},
                "hoverinfo": "skip",
            }
        ],
        {
            "xaxis": {
                "title": {"text": "account score (points)"},
                "tickvals": list(range(0, MAX_SCORE + 1, 25)),
                "range": [-14, MAX_SCORE + 14],  # room for the numbers beside the bars
            },
            "yaxis": {
                "tickvals": list(range(len(names))),
                "ticktext": names,
                "autorange": "reversed",
                "automargin": True,
            },
        },
    )
