import json
import os
from collections import Counter
from html.parser import HTMLParser

import plotly.graph_objects
import pytest

from fan_identity.batch.report import write_report
from fan_identity.batch.score_files import ScoreRun
from fan_identity.batch.separation import separate
from fan_identity.batch.summary import Summary
from fan_identity.batch.weak_label import WeakLabelReport
from fan_identity.domain.ledger import Ledger
from fan_identity.domain.scorecard import describe
from fan_identity.domain.scores import stored_reasons
from fan_identity.io.errors import UsageError
from fan_identity.io.whole_files import check_writable

VOID = {"meta", "link", "br", "img", "hr", "input"}
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "{{ 7 * 191 }}{% include 'x' %}",
    "\x00\x1b[31m\r\n\u202eevil",
    "lone \ud800 surrogate",
    "<a href='https://evil.example/'>x</a><b>y</b>",
    '" onmouseover="alert(3)',
    "A" * 10_000,
    "A" * 9_999 + "B",
    "%{customdata} $x^2$ &lt;b&gt;",
]


class Page(HTMLParser):
    """What a browser makes of the page: elements with attributes, text outside scripts, script texts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text, self.scripts = [], [], "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in {"td", "th", "dt", "dd", "li"}:
            self.text += " "

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data

    @property
    def words(self):
        return " ".join(self.text.split())

    @property
    def figures(self):
        (figures,) = [json.loads(text) for text in self.scripts if text.startswith('{"')]
        return figures


def item(user, score, *, arm=None, minute=0, reasons=(("ACTIVITY_RATE", 42.0, -11.25), ("ASSET_LOADS", 0.25, 2.5))):
    base = 73.5
    return {
        "globalUserId": user,
        "activityId": f"a-{user[:20]}",
        "activityType": "pageView",
        "occurredAt": f"2024-06-14T{10 + minute // 60:02d}:{minute % 60:02d}:00.000Z",
        "accountScore": score,
        "armRisk": arm or min(5, max(1, 5 - int(score // 20))),
        "bonScore": round(1 - score / 100, 4),
        "modelVersion": "embedded-scorecard-1",
        "reasons": [{"code": code, "value": value, "points": points} for code, value, points in reasons],
        "baseScore": base,
        "otherPoints": round(score - base - sum(points for _, _, points in reasons), 2),
    }


def summary_of(items):
    latest = {one["globalUserId"]: one for one in items}
    arms = Counter(one["armRisk"] for one in latest.values())
    return Summary(latest, {arm: arms[arm] for arm in range(1, 6)})


SALE = summary_of(
    [item(f"fan-{n:04d}", 60.0 + n % 35, minute=n % 300) for n in range(1_200)]
    + [item(f"bot-{n:04d}", 5.0 + n % 30, minute=n % 90) for n in range(60)]
)
KINDS = {user: "fan" if user.startswith("fan") else ("stealth", "searcher")[int(user[4:]) % 2] for user in SALE.latest}
RUN = ScoreRun(
    Ledger(
        read=16_190,
        waiting_before=10,
        rejected={"unknown_type": 157, "too_old": 40},
        deduplicated=163,
        enqueued=15_799,
        scored=15_799,
        dead_lettered={"malformed": 41},
    ),
    enqueue_seconds=3.0,
    score_seconds=5.0,
    interrupted=False,
)


@pytest.fixture(autouse=True)
def _small_plotly(monkeypatch):
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "/* plotly.js */")  # the real one has 5 MB


def written(tmp_path, run=RUN, summary=SALE, **more):
    path = tmp_path / "report.html"
    write_report(path, run, summary, **more)
    return Page(path.read_text(encoding="utf-8"))


def test_figures_are_those_of_the_input(tmp_path):
    page = written(tmp_path)
    for figure in (
        "records read 16,190",
        "scored in this run 15,799",
        "records a second 2,024",
        "users with a score 1,260",
        "of users at ARM 4\N{EN DASH}5 4.8 %",
        "60 of 1,260 users (4.8 %) are risky",
    ):
        assert figure in page.words
    for row in (
        "Rejected not to be scored 197 1.2 %",
        "not a kind of activity that is scored 157",
        "Deduplicated had come before 163",
        "not a valid activity 41",
        "Came in: 16,190 read and 10 left waiting by an earlier run 16,200",
        "every record is accounted for",
    ):
        assert row in page.words
    figures = page.figures
    assert figures["arm"]["data"][0]["y"] == list(SALE.arm_distribution.values())
    assert sum(figures["scores"]["data"][0]["y"]) == 1_260
    assert [trace["x"][0] for trace in figures["books"]["data"]] == [15_799, 163, 197, 41]


def test_the_riskiest_users_come_first_with_their_reasons_in_words(tmp_path):
    page = written(tmp_path)
    lowest = sorted(SALE.latest.values(), key=lambda one: (one["accountScore"], one["globalUserId"]))
    table = page.words[page.words.index("The 20 users") : page.words.index("How a score comes about")]
    places = [table.index(one["globalUserId"]) for one in lowest[:20]]
    assert places == sorted(places)
    assert lowest[20]["globalUserId"] not in table
    for reason in stored_reasons(lowest[0]):
        assert describe(reason) in table


def test_an_example_adds_up_to_its_score(tmp_path):
    figures = written(tmp_path).figures
    scores = sorted(one["accountScore"] for one in SALE.latest.values())
    totals = [sum(figures[f"example{number}"]["data"][0]["x"]) for number in range(3)]
    assert totals[0] == pytest.approx(scores[0])
    assert totals[2] == pytest.approx(scores[-1])
    assert scores[0] < totals[1] < scores[-1]


def test_with_the_truth_fans_and_bots_are_drawn_apart(tmp_path):
    separation = separate(SALE, KINDS)
    page = written(tmp_path, separation=separation)
    assert "1,200 fans and 60 bots" in page.words
    assert f"{separation.roc_auc:.4f}" in page.words
    for kind, auc in separation.auc_by_kind.items():
        assert f"{kind} 30 {auc:.4f}" in page.words
    assert [trace["name"] for trace in page.figures["scores"]["data"]] == ["fans", "bots"]
    assert len(page.figures["roc"]["data"][0]["x"]) == len(separation.roc_curve)
    assert "Held against the truth" not in written(tmp_path).words


@pytest.mark.parametrize(
    ("auc", "rate", "finding"),
    [
        (0.93, 0.71, "better than the request rate does"),
        (0.6, 0.71, "no better than the request rate does"),
        (None, None, "There is nothing to compare"),
    ],
)
def test_the_weak_label_stands_beside_its_baselines(tmp_path, auc, rate, finding):
    crawlers = 1_041 if auc else 0
    constant = None if auc is None else 0.5
    page = written(tmp_path, weak_label=WeakLabelReport(16_000, 3, 1_590, 12, crawlers, auc, rate, constant, None))
    assert finding in page.words
    assert f"{crawlers:,} crawlers among 1,590 users" in page.words
    shown = "\N{EN DASH}" if rate is None else "0.7100"
    assert f"requests per minute (baseline) {shown}" in page.words
    assert "A weak label is a stand-in for the truth" in page.words


def test_the_page_loads_nothing_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real plotly.js
    page = written(tmp_path, separation=separate(SALE, KINDS))
    loading = {"src", "href", "data", "srcset", "action", "poster", "background"}
    assert [(tag, attrs) for tag, attrs in page.elements if loading & attrs.keys()] == []
    policies = [attrs for tag, attrs in page.elements if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0]["content"].startswith("default-src 'none'")
    assert sum("plotly.js v" in script[:200] for script in page.scripts) == 1


def test_hostile_names_are_text_and_short(tmp_path):
    code = "<b>NEW</b><a href='https://evil.example/'>x</a>" + "x" * 5_000
    tame = written(tmp_path, summary=summary_of([item(f"u{n}", float(n), arm=5) for n in range(len(HOSTILE))]))
    hostile = [item(user, float(n), arm=5, reasons=((code, 1.0, -3.0),)) for n, user in enumerate(HOSTILE)]
    kinds = {user: "fan" if n % 2 else "<i>kind</i>" * 99 for n, user in enumerate(HOSTILE)}
    summary = summary_of([{**one, "modelVersion": "<img src=https://evil.example/>"} for one in hostile])
    run = ScoreRun(Ledger(read=1, rejected={"<u>why</u>" * 99: 1}), 1.0, 1.0, False)
    page = written(
        tmp_path, run, summary, separation=separate(summary, kinds), title="<script>alert(4)</script>" + "t" * 999
    )
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in tame.elements}
    assert not {name for _, attrs in page.elements for name in attrs if name.startswith("on")}
    assert len(page.scripts) == len(tame.scripts) == 3
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 191 }}{% include 'x' %}" in page.text
    assert "\\x00\\x1b[31m\\r\\n\\u202eevil" in page.text
    assert "lone \\ud800 surrogate" in page.text
    assert "1337" not in page.text
    assert not [char for char in page.text if not char.isprintable() and char not in "\n"]
    assert max(map(len, page.text.split())) <= 200
    labels = [*page.figures["reasons"]["data"][0]["y"], *page.figures["example0"]["layout"]["yaxis"]["ticktext"]]
    assert any("&lt;b&gt;NEW" in label for label in labels)
    assert not [label for label in labels if "<" in label or len(label) > 40]


def test_two_long_ids_that_begin_alike_look_different(tmp_path):
    page = written(tmp_path, summary=summary_of([item(user, 5.0) for user in ("A" * 10_000, "A" * 9_999 + "B")]))
    assert len({word for word in page.text.split() if word.startswith("#")}) == 2


def test_plotly_knows_every_setting(tmp_path):
    figures = written(tmp_path, separation=separate(SALE, KINDS)).figures
    assert set(figures) == {"books", "arm", "scores", "time", "reasons", "roc", "example0", "example1", "example2"}
    for figure in figures.values():
        plotly.graph_objects.Figure(data=figure["data"], layout=figure["layout"])


def test_an_empty_store_still_makes_a_readable_page(tmp_path):
    page = written(tmp_path, ScoreRun(Ledger(), 0.0, 0.0, False), summary_of([]))
    assert "No user has a score yet" in page.words
    assert set(page.figures) == {"books"}


def test_one_user_is_one_example(tmp_path):
    page = written(tmp_path, summary=summary_of([item("only", 50.0)]))
    assert "example0" in page.figures
    assert "example1" not in page.figures


def test_users_last_seen_years_ago_do_not_squeeze_the_others(tmp_path):
    stray = {**item("stray", 50.0), "occurredAt": "2001-01-01T00:00:00.000Z"}
    page = written(tmp_path, summary=summary_of([*SALE.latest.values(), stray]))
    times = page.figures["time"]["data"][2]["x"]
    assert len(times) > 5
    assert all(time.startswith("2024-06-14") for time in times)
    assert "Left out: 1 " in page.words


def test_books_that_do_not_balance_say_so(tmp_path):
    page = written(tmp_path, ScoreRun(Ledger(read=10, scored=7), 1.0, 1.0, False))
    assert "3 are unaccounted for" in page.words


def test_a_stopped_run_says_so(tmp_path):
    page = written(tmp_path, ScoreRun(Ledger(read=10, scored=7, waiting_after=3), 1.0, 1.0, True))
    assert "stopped before its end: 3 records still wait" in page.words


def test_an_old_report_stays_where_the_new_one_fails(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(UsageError, match=r"--report: cannot write .*report\.html: No space left"):
        write_report(path, RUN, SALE)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_report_replaces_the_one_a_link_points_to(tmp_path):
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "link.html").symlink_to("real.html")
    write_report(tmp_path / "link.html", RUN, SALE)
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("name", ["", "missing/report.html", "a\0b.html", "x" * 300 + ".html"])
def test_a_path_that_cannot_be_written_is_named(tmp_path, name):
    with pytest.raises(UsageError, match="--report") as caught:
        write_report(tmp_path / name, RUN, SALE)
    assert str(tmp_path / name) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="not a file"):
        check_writable(pipe, "report")
    with pytest.raises(UsageError, match="not a file"):
        write_report(pipe, RUN, SALE)
    assert pipe.is_fifo()
