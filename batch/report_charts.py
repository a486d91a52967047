"""The report's plots, each with its finding as the title: plain data for plotly, which the page's script draws."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..domain.ledger import Ledger
from ..domain.scorecard import ARM_LEVELS, MAX_SCORE, Reason
from ..domain.scores import stored_reasons
from ..io.ports import Item
from .report_text import label, percent, shown, words
from .separation import Separation
from .summary import Summary

RISKY_ARM: Final = 4
"""Users at this ARM or above are called risky."""

_STRONGEST: Final = 10
_BIN: Final = 2  # points of account score a bar of the histogram

# Paul Tol and ColorBrewer (RdBu): told apart with any colour blindness, and in grey, on white and on black.
BLUE, _RED, _GREY = "#3b82bf", "#d1603d", "#8a93a0"
_PALE_BLUE, _AMBER = "#9ecae1", "#e0a030"
_ARM_COLOURS: Final = ("#2f6fab", "#7fb2d6", "#b5bac2", "#ec9a72", "#b93a32")


@dataclass(frozen=True)
class Chart:
    """A plot: the finding as its title, and plotly's own data and layout, which the page's script draws."""

    name: str
    title: str
    note: str
    height: int
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]


def score_of(item: Item) -> float:
    """An item's account score."""
    return float(item["accountScore"])


def _of(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def quantile(ascending: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def books(ledger: Ledger) -> list[tuple[str, str, int, str, Mapping[str, int]]]:
    """What became of the records: name, meaning, number, colour, and the number by reason."""
    rows: list[tuple[str, str, int, str, Mapping[str, int]]] = [
        ("Scored", "a score was stored", ledger.scored, BLUE, {}),
        ("Deduplicated", "had come before", ledger.deduplicated, _PALE_BLUE, {}),
        ("Rejected", "not to be scored", ledger.total_rejected, _GREY, ledger.rejected),
        ("Dead-lettered", "could not be processed; kept to look into", ledger.total_dead_lettered, _RED,
         ledger.dead_lettered),
        ("Waiting", "still in the queue", ledger.waiting_after, _AMBER, {}),
    ]  # fmt: skip
    return [row for row in rows if row[2] or row[0] != "Waiting"]


def books_chart(ledger: Ledger) -> Chart:
    """What became of the records, in one bar."""
    came_in = ledger.read + ledger.waiting_before
    missing = "every record is accounted for"
    if ledger.unaccounted:
        missing = f"{abs(ledger.unaccounted):,} are unaccounted for"
    return Chart(
        "books",
        f"{percent(_of(ledger.scored, came_in))} of the records were scored, and {missing}",
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
            for name, _, number, colour, _ in books(ledger)
        ],
        {
            "barmode": "stack",
            "showlegend": True,
            "xaxis": {"title": {"text": "records"}, "tickformat": ",d", "range": [0, max(1, came_in)]},
            "yaxis": {"showticklabels": False},
        },
    )


def arm_chart(summary: Summary) -> Chart:
    """How many users are at each ARM."""
    arms = range(1, ARM_LEVELS + 1)
    counts = [summary.arm_distribution.get(arm, 0) for arm in arms]
    risky = sum(counts[RISKY_ARM - 1 :])
    return Chart(
        "arm",
        f"{percent(_of(risky, summary.users))} of the users are risky (ARM 4 or 5)",
        "ARM is the account risk. 1: behaves like an ordinary fan. 5: behaves like the bots the model has learnt from.",
        340,
        [
            {
                "type": "bar",
                "x": [str(arm) for arm in arms],
                "y": counts,
                "marker": {"color": list(_ARM_COLOURS)},
                "text": [f"{number:,}<br>{percent(_of(number, summary.users))}" for number in counts],
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


def histogram(items: Sequence[Item], separation: Separation | None) -> Chart:
    """How the account scores spread; fans and bots apart where the truth is known."""
    if separation is None:
        scores = [score_of(item) for item in items]
        middle = quantile(scores, 0.5)
        title = f"Half of the users score above {middle:.0f} of {MAX_SCORE}"
        traces = [_histogram_trace("users", scores, BLUE, 1.0)]
    else:
        by_truth: dict[bool, list[float]] = {False: [], True: []}
        for item in items:
            if item["globalUserId"] in separation.is_bot:
                by_truth[separation.is_bot[item["globalUserId"]]].append(score_of(item))
        fans, bots = by_truth[False], by_truth[True]
        title = f"The middle fan scores {quantile(fans, 0.5):.0f}, the middle bot {quantile(bots, 0.5):.0f}"
        traces = [
            _histogram_trace("fans", fans, BLUE, 100 / len(fans)),
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


def reasons_chart(risky: Sequence[Item]) -> list[Chart]:
    """What speaks most against the risky users; nothing where no reason is stored with them."""
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
    first = shown(words(strongest[0]))
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
                    "y": [label(words(code)) for code in strongest],
                    "marker": {"color": _RED},
                    "text": [f"\N{MINUS SIGN}{-mean:.1f}" for mean in means],
                    "textposition": "auto",
                    "customdata": [
                        f"{counts[code]:,} users ({percent(counts[code] / len(risky))})" for code in strongest
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


def roc_chart(separation: Separation) -> Chart:
    """Bots caught against fans flagged, over every cut of the score."""
    return Chart(
        "roc",
        f"A bot ranks as riskier than a fan in {percent(separation.roc_auc)} of all pairs",
        f"That share is the area under this curve (AUC). Of the riskiest 1 % of users, "
        f"{percent(separation.precision_at_1_percent)} are bots; among all users it is "
        f"{percent(separation.bots / separation.users)}.",
        380,
        [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "account score",
                "x": [round(100 * fans, 3) for fans, _ in separation.roc_curve],
                "y": [round(100 * bots, 3) for _, bots in separation.roc_curve],
                "line": {"color": BLUE, "width": 2.5},
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


def waterfall(number: int, item: Item) -> Chart:
    """How a user's score adds up from base and reasons."""
    reasons: list[Reason] = stored_reasons(item)
    steps = [reason.points for reason in reasons] + [item["otherPoints"]]
    names = [
        "Average account",
        *(label(words(reason.code)) for reason in reasons),
        "Everything else",
        "Account score",
    ]
    texts = [f"{item['baseScore']:.1f}", *(f"{step:+.1f}".replace("-", "\N{MINUS SIGN}") for step in steps)]
    return Chart(
        f"example{number}",
        f"{score_of(item):.1f} of {MAX_SCORE} points, ARM {item['armRisk']}",
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
                "text": [*texts, f"{score_of(item):.1f}"],
                "textposition": "outside",
                "cliponaxis": False,
                "increasing": {"marker": {"color": BLUE}},
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
