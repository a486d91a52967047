"""The report of an import: its figures, that data can do nothing in it, and that a browser shows it on any screen."""

import re
from html.parser import HTMLParser
from xml.etree.ElementTree import fromstring

import pytest
from msgspec.structs import replace

from fan_identity.batch.import_charts import HEAT_STEPS, compact, heat, values_chart
from fan_identity.batch.import_report import render_import_report, write_import_report
from fan_identity.domain.import_verdict import refusal
from fan_identity.domain.imports import (
    ArmChange,
    ClusterChanges,
    Comparison,
    ImportKind,
    State,
    Thresholds,
    VersionRecord,
)
from fan_identity.io.errors import UsageError

VOID = {"meta", "br"}
HOSTILE = (
    "<script>alert(1)</script>",
    "</bdi><img src=https://evil.example/ onerror=alert(2)>",
    "\x00\x1b[31m\r\n\u202eevil",
    "lone \ud800 surrogate",
    '" onmouseover="alert(3)',
    "{{ 7 * 191 }}",
    "A" * 10_000,
    "A" * 9_999 + "B",
)


class Page(HTMLParser):
    """What a browser makes of the page: elements with attributes, words outside the style sheet, rows of tables."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text, self.rows = [], [], "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in {"td", "th", "dt", "dd", "li", "title", "h3"}:
            self.handle_data(" ")

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data
            if "tr" in self.open:
                self.rows[-1] += data

    @property
    def words(self):
        return " ".join(self.text.split())

    def row(self, beginning):
        (found,) = [" ".join(row.split()) for row in self.rows if " ".join(row.split()).startswith(beginning)]
        return found


def arm(moves):
    return tuple(tuple(moves.get((before, after), 0) for after in range(1, 6)) for before in range(1, 6))


SCORES = VersionRecord(
    "20261126T021500Z-1a2b3c4d",
    ImportKind.BOT_OR_NOT,
    State.STAGING,
    ("s3://imports/2026-11-26/part-0000.parquet", "s3://imports/2026-11-26/part-0001.parquet"),
    "1a2b3c4d" * 8,
    1_795_659_300_000,
    newest_row_at=1_795_650_000_000,
    replaced="20261125T021500Z-0f0f0f0f",
    comparison=Comparison(
        compared_with="20261125T021500Z-0f0f0f0f",
        rows=1_740_221,
        bad={"out_of_range": 311, "blank_user": 48},
        bad_examples=("part-0000.parquet, row 311: bonScore 1.2 is not between 0 and 1",),
        repeated=1_204,
        older=12,
        fans=1_738_658,
        unknown=44_012,
        added=103_210,
        removed=44,
        changed=120_341,
        unchanged=1_515_107,
        arm=arm({(1, 2): 8_211, (2, 2): 51_022, (2, 5): 310, (2, 1): 2_914, (5, 1): 3}),
        examples=(
            ArmChange("fan-000017", 5, 1, 3.4, 94.25, 0.98761, 0.0312),
            ArmChange("fan-000018", 2, 5, 71.5, 4.0, None, 0.991),
        ),
        values_before=(1_210_332, 210_300, 80_211, 30_222, 12_022, 8_011, 6_201, 5_200, 9_044, 63_949),
        values_after=(1_180_332, 240_300, 90_211, 31_222, 11_022, 8_311, 6_001, 5_700, 9_944, 155_615),
    ),
)
CLUSTERS = replace(
    SCORES,
    kind=ImportKind.CLUSTER,
    comparison=replace(
        SCORES.comparison,
        examples=(ArmChange("fan-000019", 2, 4, 71.5, 34.0, "c-0001", "c-0002"),),
        values_before=(600_000, 400_000, *(0,) * 18, 7),
        values_after=(400_000, 600_000, *(0,) * 19),
        clusters=ClusterChanges(
            before=840_221,
            after=851_300,
            split=1_904,
            merged=77,
            split_examples=(("c-0001", (("n-2", 40), ("n-1", 120), *((f"n-{n}", 1) for n in range(3, 11)))),),
            merged_examples=(("n-9", (("c-8", 1), ("c-9", 2_000))),),
        ),
    ),
)


def page_of(record=SCORES, thresholds=None, *, refused=None, dry_run=True):
    held = record if thresholds is None else replace(record, thresholds=thresholds)
    return Page(render_import_report(held, refused=refused, dry_run=dry_run))


def test_the_figures_are_those_of_the_record():
    page = page_of()
    for said in (
        "Import of bot-or-not scores: Dry run: would become active",
        "11,438 fans change ARM, 310 of them from 2 to 5",
        "8,521 fans get riskier, 2,917 less risky",
        "103,210 fans are new, 44 lose their value",
        "44,012 fans of the version have never been scored.",
        "12 fans keep a stored value that is newer than the files'.",
        "SHA-256 of the files " + "1a2b3c4d" * 8,
        "Started 2026-11-26 02:15:00 UTC",
        "Newest row 2026-11-25 23:40:00 UTC",
        "s3://imports/2026-11-26/part-0001.parquet",
        "Job startBotOrNotImport",
        "part-0000.parquet, row 311: bonScore 1.2 is not between 0 and 1",
    ):
        assert said in page.words
    assert page.row("fan-000017") == "fan-000017 5 → 1 ▼ less risky 3.40 → 94.25 0.9876 → 0.0312"
    assert page.row("fan-000018") == "fan-000018 2 → 5 ▲ riskier 71.50 → 4.00 none → 0.991"
    assert page.row("Another value") == "Another value in both versions 120,341"
    assert page.row("Fans of both versions") == "Fans of both versions 1,738,702"


def test_the_matrix_goes_from_before_to_after():
    page = page_of()
    # Each figure stands there twice: in full, and short for a phone.
    assert page.row("2 →") == "2 → 2,9142.9k▼ 51,02251.0k 00 00 310310▲ 54,24654.2k"
    assert page.row("1 →") == "1 → 00 8,2118.2k▲ 00 00 00 8,2118.2k"
    assert page.row("all") == "all 2,9172.9k 59,23359.2k 00 00 310310 62,46062.4k"
    shades = {tuple(attrs["class"].split()) for tag, attrs in page.elements if tag == "td" and "shade" in str(attrs)}
    assert shades == {("u", "shade5"), ("u", "shade4"), ("d", "shade5"), ("d", "shade1")}
    assert [attrs["scope"] for tag, attrs in page.elements if tag == "th"].count("row") >= 6


def test_the_plot_has_every_number_and_a_finding():
    page = page_of()
    assert "10.7 % of fans have a score of 0.5 or more; it was 5.6 %" in page.words
    (chart,) = [attrs for tag, attrs in page.elements if attrs.get("class") == "values"]
    assert chart["role"] == "img"
    bars = [bar for bar in fromstring(values_chart(SCORES)).iter("rect") if bar.get("height") != "11"]  # not the legend
    assert [bar.get("class") for bar in bars] == ["before", "after"] * 10
    longest = float(bars[0].get("width"))
    assert float(bars[1].get("width")) == pytest.approx(longest * 1_180_332 / 1_210_332, abs=0.1)
    assert float(bars[-1].get("width")) == pytest.approx(longest * 155_615 / 1_210_332, abs=0.1)
    for number in (*SCORES.comparison.values_before, *SCORES.comparison.values_after):
        assert f"{number:,}" in page.words
    assert "0.9\N{EN DASH}1.0: 63,949 before, 155,615 after" in page.words


def test_clusters_with_what_became_of_them():
    page = page_of(CLUSTERS)
    for said in (
        "1,904 clusters split, 77 merge",
        "840,221 before, 851,300 after.",
        "40.0 % of fans are alone in their cluster; it was 60.0 %",
        "c-0001 168 fans in its 10 largest parts: n-1 120, n-2 40, n-10 1, n-3 1, 6 more with 6 together",
        "n-9 2,001 fans: c-9 2,000, c-8 1",
        "1,048,576+: 7 before, 0 after",
        "Job startClusterImport",
    ):
        assert said in page.words
    assert page.row("fan-000019") == "fan-000019 2 → 4 ▲ riskier 71.50 → 34.00 c-0001 → c-0002"
    assert "The clusters" not in page_of().words


def test_the_books_balance_or_say_so():
    page = page_of()
    assert "rows read = bad + repeated + fans of the version" in page.words
    assert "Every row is accounted for" in page.words
    assert page.row("Rows read") == "Rows read 1,740,221"
    assert page.row("Bad unreadable") == "Bad unreadable, or against a rule 359 0.02 %"
    assert page.row("no fan's id") == "no fan's id 48 under 0.01 %"
    lost = page_of(replace(SCORES, comparison=replace(SCORES.comparison, rows=1_740_224)))
    assert "The rows do not balance" in lost.words
    assert lost.row("Unaccounted for") == "Unaccounted for 3"
    assert "Every row is accounted for" not in lost.words


def test_figures_stand_beside_their_limits():
    thresholds = Thresholds(bad=0.0001, unknown=0.05)
    refused = refusal(SCORES.comparison, thresholds)
    page = page_of(thresholds=thresholds, refused=refused, dry_run=False)
    assert "Import of bot-or-not scores: Refused" in page.words
    assert refused in page.words
    assert "359 of 1,740,221 rows are bad (0.02%), more than --max-bad 0.0001 allows" in page.words
    assert page.row("359 of").startswith("359 of 1,740,221 rows are bad 0.02 % 0.01 % ✗ over --max-bad")
    assert page.row("44,012 of").startswith("44,012 of 1,738,658 fans have never been scored 2.5 % 5.0 % ✓ within")
    over, *within = [attrs for tag, attrs in page.elements if attrs.get("class") == "check"]
    assert over["aria-label"] == "rows are bad: over the limit"
    assert {attrs["aria-label"].rpartition(": ")[2] for attrs in within} == {"within the limit"}


@pytest.mark.parametrize(
    ("state", "refused", "dry_run", "tone", "said"),
    [
        (State.STAGING, "why", True, "bad", "✗ Dry run: would be refused"),
        (State.STAGING, None, True, "still", "○ Dry run: would become active"),
        (State.ACTIVE, None, False, "good", "✓ Active"),
        (State.ROLLED_BACK, None, False, "still", "○ Rolled back"),
    ],
)
def test_the_verdict_is_first_and_not_only_a_colour(state, refused, dry_run, tone, said):
    page = page_of(replace(SCORES, state=state), refused=refused, dry_run=dry_run)
    assert said in page.words[: page.words.index("What it changes")]
    assert any(attrs.get("class") == f"card verdict {tone}" for _, attrs in page.elements)


def test_a_first_version_and_an_empty_one_are_pages_too():
    first = Comparison(rows=3, fans=3, added=3, values_after=(1, 2, *(0,) * 19), clusters=ClusterChanges(after=2))
    page = page_of(replace(CLUSTERS, comparison=first))
    assert "no version was active before" in page.words
    assert "33.3 % of fans are alone in their cluster" in page.words
    assert "it was" not in page.words
    assert not [attrs for _, attrs in page.elements if attrs.get("class") == "before"]
    empty = page_of(VersionRecord("v", ImportKind.BOT_OR_NOT, State.STAGING, (), "", 0), refused="no usable row")
    assert "The files have no usable row" in empty.words
    assert "There are no values to draw" in empty.words
    assert "Newest row unknown" in empty.words


def hostile(record):
    changes = record.comparison
    return replace(
        record,
        files=HOSTILE,
        version=HOSTILE[0],
        digest=HOSTILE[1],
        comparison=replace(
            changes,
            compared_with=HOSTILE[1],
            bad=dict.fromkeys(HOSTILE, 1),
            bad_examples=HOSTILE,
            examples=tuple(ArmChange(name, 1, 5, 90.0, 3.0, name, name) for name in HOSTILE),
            clusters=ClusterChanges(
                split_examples=tuple((name, tuple((other, 2) for other in HOSTILE)) for name in HOSTILE),
                merged_examples=((HOSTILE[1], ((HOSTILE[0], 1), (HOSTILE[2], 1))),),
            ),
        ),
    )


@pytest.mark.parametrize("record", [SCORES, CLUSTERS])
def test_hostile_names_are_text_and_short(record):
    tame = page_of(record)
    page = page_of(hostile(record), refused="".join(HOSTILE), dry_run=False)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in tame.elements} | {
        tag for tag, _ in page_of(CLUSTERS).elements
    }
    assert not {
        name for _, attrs in page.elements for name in attrs if name.startswith("on") or name in {"src", "href"}
    }
    assert "<script>alert(1)</script>" in page.words
    assert "\\x00\\x1b[31m\\r\\n\\u202eevil" in page.words
    assert "lone \\ud800 surrogate" in page.words
    assert "1337" not in page.words
    assert not [char for char in page.text if not char.isprintable() and char not in "\n"]
    assert max(map(len, page.text.split())) <= 600
    fans = {row for row in map(str.strip, page.rows) if row.startswith("AAAA")}
    assert len({re.search(r"#[0-9a-f]{8}", row).group() for row in fans}) == 2, "long ids that begin alike differ"


def test_the_page_loads_nothing_and_runs_nothing():
    for record in (SCORES, CLUSTERS):
        page = page_of(record)
        loading = {"src", "href", "data", "srcset", "action", "poster", "background", "xlink:href"}
        assert [(tag, attrs) for tag, attrs in page.elements if loading & attrs.keys()] == []
        assert {"script", "link", "iframe", "object"}.isdisjoint({tag for tag, _ in page.elements})
        (policy,) = [attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs]
        assert policy.startswith("default-src 'none'")
        assert "url(" not in render_import_report(record, refused=None, dry_run=True)


def test_an_old_report_stays_where_the_new_one_fails(tmp_path):
    path = tmp_path / "report.html"
    write_import_report(path, SCORES, refused=None, dry_run=True)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(UsageError, match=r"^--report: cannot write .*none/report\.html"):
        write_import_report(tmp_path / "none" / "report.html", SCORES, refused=None, dry_run=True)
    with pytest.raises(UsageError, match="is not a file"):
        write_import_report(tmp_path, SCORES, refused=None, dry_run=True)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1_000, "1.0k"), (99_999, "99.9k"), (999_999, "999k"), (1_234_567, "1.2M")],
)
def test_short_numbers(number, text):
    assert compact(number) == text


def test_shades_rise_with_the_number():
    shades = [heat(number, 10_000) for number in (0, 1, 10, 100, 1_000, 10_000)]
    assert shades == sorted(shades)
    assert (shades[0], shades[1], shades[-1]) == (0, 1, HEAT_STEPS)
    assert heat(1, 1) == HEAT_STEPS


@pytest.mark.parametrize("record", [SCORES, CLUSTERS, hostile(CLUSTERS)], ids=["scores", "clusters", "hostile"])
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_in_a_browser(chromium, tmp_path, record, width, scheme):
    path = tmp_path / "report.html"
    held = replace(record, thresholds=Thresholds(bad=0.0001))
    write_import_report(path, held, refused="a" * 900, dry_run=False)
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    assert asked == [path.as_uri()]
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # No figure of the matrix leaves its cell, and no text of a plot leaves the plot.
    assert page.evaluate("[...document.querySelectorAll('.matrix td')].every(td => td.scrollWidth <= td.clientWidth)")
    assert page.evaluate(
        """[...document.querySelectorAll('svg.values text')].every(text => {
             const box = text.getBoundingClientRect(), plot = text.ownerSVGElement.getBoundingClientRect();
             return box.left >= plot.left - 1 && box.right <= plot.right + 1; })"""
    )
    text, ground = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    light = [sum(map(int, colour[4:-1].split(","))) for colour in (text, ground)]
    assert (light[0] > light[1]) == (scheme == "dark")
    page.close()
