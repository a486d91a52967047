"""The summary of a job: what machines read, what people see, and that data can do nothing in the page."""

import json

import pytest

from fan_identity import __version__
from fan_identity.batch.job_summary import JobSummary, Outcome, duration_text, shown_settings, without_secrets
from fan_identity.io.errors import UsageError
from fan_identity.io.settings import load_settings

STARTED = 1_718_355_600_123
HOSTILE = "<script>document.title='owned'</script>\x1b[31m\u202e"

SUMMARY = JobSummary(
    job="backfill enqueueFromStream",
    started_at=STARTED,
    ended_at=STARTED + 3_723_500,
    outcome=Outcome.DEAD_LETTERS,
    exit_code=1,
    counts={"read": 1_000_000, "rejected.too_old": 40, f"dead_lettered.{HOSTILE}": 3, "scored": 999_957, "left": 0},
    settings={"store": "sqlite:///" + "a-long-folder/" * 12 + "fans.db"},
    notes=("3 records became dead letters.", HOSTILE),
    links={"run": "https://airflow.example/run?a=1&b=2", "redrive": "javascript:alert(1)"},
)


def test_json_says_all_of_it(tmp_path):
    SUMMARY.write_json(tmp_path / "summary.json")
    read = json.loads((tmp_path / "summary.json").read_text())
    assert read == {
        "job": "backfill enqueueFromStream",
        "startedAt": "2024-06-14T09:00:00.123Z",
        "endedAt": "2024-06-14T10:02:03.623Z",
        "seconds": 3723.5,
        "outcome": "done with dead letters",
        "exitCode": 1,
        "counts": dict(SUMMARY.counts),
        "settings": dict(SUMMARY.settings),
        "notes": list(SUMMARY.notes),
        "links": dict(SUMMARY.links),
        "version": __version__,
    }


def test_a_file_is_replaced_wholly_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("older")
    with pytest.raises(UsageError, match=r"^--summary: cannot write .*none/summary\.json: there is no folder .*none$"):
        SUMMARY.write_json(tmp_path / "none" / "summary.json")
    with pytest.raises(UsageError, match="is not a file"):
        SUMMARY.write_html(tmp_path)
    assert path.read_text() == "older"
    SUMMARY.write_json(path)
    assert json.loads(path.read_text())["exitCode"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_secrets_and_fans_are_not_shown(monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_INTERNAL_ACCOUNTS", "staff-1,staff-2")
    shown = shown_settings(
        load_settings(store="sqlite:///f.db", cache="redis://user:pa:ss@host/0", model="https://m/s?token=abc&batch=64")
    )
    assert shown["internal_accounts"] == "2 given"
    assert shown["cache"] == "redis://user:…@host/0"
    assert shown["model"] == "https://m/s?token=…&batch=64"
    assert shown["store"] == "sqlite:///f.db"
    assert without_secrets("kafka://host:9092/topic?group=a") == "kafka://host:9092/topic?group=a"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0123, "0.0123 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (3_599.6, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text


def test_an_empty_summary_is_a_page_too():
    page = JobSummary("erase", STARTED, Outcome.NOTHING, 0).as_html()
    assert "Nothing was counted." in page
    assert "Nothing to do" in page
    assert "<h2>Notes" not in page


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_loads_nothing_and_runs_nothing(chromium, tmp_path, width, scheme):
    SUMMARY.write_html(tmp_path / "job.html")
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "job.html").as_uri())
    assert asked == [(tmp_path / "job.html").as_uri()]
    assert said == []
    assert page.title() == "backfill enqueueFromStream: done with dead letters"
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("script").count() == 0
    assert page.get_by_text("<script>document.title='owned'</script>").count() == 2

    widths = [bar.bounding_box()["width"] for bar in page.locator("rect").all()]
    assert widths[0] == max(widths) > 150
    assert widths[3] == pytest.approx(widths[0], rel=0.01)
    assert [0 < each < 4 for each in widths[1:3]] == [True, True], "few among many are still seen"
    assert widths[4] == 0
    assert [cell.inner_text() for cell in page.locator(".number").all()] == ["1,000,000", "40", "3", "999,957", "0"]

    assert [link.get_attribute("href") for link in page.locator("a").all()] == ["https://airflow.example/run?a=1&b=2"]
    text, page_colour = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    light = [sum(map(int, colour[4:-1].split(","))) for colour in (text, page_colour)]
    assert (light[0] > light[1]) == (scheme == "dark")
    page.close()
