"""The fan page in Chromium: what it shows is what the API answers, whatever that is."""

import math
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from fan_identity.domain.scorecard import (
    IMPORT_REASON_CODES,
    REASON_CODES,
    VERIFICATION_REASON_CODES,
    Reason,
    describe,
)
from fan_identity.serving.data_sources import ArmScore

HOSTILE = """<script>document.title='owned'</script><img src=x onerror="alert(1)">"'&amp;\u202e{{7*7}}"""


def fans_url(site, user):
    return f"{site.address}/fans#{quote(user, safe='')}"


def shown(page, tile):
    """A tile's text."""
    return page.locator(".tiles > div").filter(has=page.locator("dt", has_text=tile))


def values(locator):
    return [float(value) for value in locator.locator("data").evaluate_all("nodes => nodes.map(node => node.value)")]


def open_fan(site, tab, user="fan-00042", **options):
    watched = tab(**options)
    page = watched.open(fans_url(site, user), site.token)
    expect(page.locator(".reasons")).to_be_visible()
    return watched, page


def test_numbers_on_the_page_are_the_apis(site, tab):
    site.fill("fan-00042", clusterId="cluster-17")
    told = site.ask("fan-00042")
    _, page = open_fan(site, tab)
    newest = told["history"][0]
    assert values(shown(page, "Account risk"))[0] == told["armScore"]["score"] == 5
    assert "embedded-scorecard-1" in shown(page, "Account risk").inner_text()
    assert "stale" not in shown(page, "Account risk").inner_text()
    assert values(shown(page, "Account score")) == [newest["accountScore"]]
    assert f"{newest['accountScore']:.2f}" in shown(page, "Account score").inner_text()
    assert values(shown(page, "Bot-or-not")) == [newest["bonScore"]]
    fanscore = told["accountFanscore"]
    boosts = [fanscore["boosts"][name] for name in ("arm", "event", "model")]
    assert values(shown(page, "Account fan score")) == [fanscore["score"], fanscore["rawScore"], *boosts]
    assert "cluster-17" in shown(page, "Cluster").inner_text()
    page.locator("summary").click()
    rows = page.locator("details tbody tr")
    assert [values(row) for row in rows.all()] == [
        [one["accountScore"], one["armRisk"], one["bonScore"]] for one in told["history"]
    ]


def test_reasons_are_listed_with_their_points_and_add_up(site, tab):
    site.fill("fan-00042")
    newest = site.ask("fan-00042")["history"][0]
    _, page = open_fan(site, tab)
    points = values(page.locator(".reasons"))
    assert points == [
        newest["baseScore"],
        *[reason["points"] for reason in newest["reasons"]],
        newest["otherPoints"],
        newest["accountScore"],
    ]
    assert math.isclose(sum(points[:-1]), points[-1], abs_tol=1e-9)
    assert page.locator(".why .problem").count() == 0
    # Bars are as long as their points, on the side of their sign.
    bars = page.locator(".reasons .bar").evaluate_all(
        "bars => bars.map(bar => [bar.classList.contains('minus') ? -1 : 1, bar.getBoundingClientRect().width])"
    )
    signs = [math.copysign(1, one) for one in points[1:-1]]
    assert [side for side, _ in bars] == signs
    assert bars[0][1] / bars[2][1] == pytest.approx(points[1] / points[3], rel=0.02)


def test_parts_that_do_not_add_up_are_said_not_to(site, tab):
    site.fill("fan-00042", baseScore=70.0)
    _, page = open_fan(site, tab)
    expect(page.locator(".why .problem")).to_contain_text("add up to 53.40, which is not the score")


def test_a_model_without_a_base_is_not_said_to_add_up(site, tab):
    site.fill(
        "fan-00042", baseScore=None, otherPoints=None, reasons=[{"code": "VELOCITY", "value": 3.0, "points": -4.0}]
    )
    _, page = open_fan(site, tab)
    expect(page.locator(".why")).to_contain_text("VELOCITY = 3")
    expect(page.locator(".why")).to_contain_text("need not add up")
    assert "average account" not in page.locator(".why").inner_text()


def test_sentences_are_the_domains(site, tab):
    reasons = [
        Reason(code, feature, value, -1.0)
        for feature, code in (REASON_CODES | IMPORT_REASON_CODES | VERIFICATION_REASON_CODES).items()
        for value in (None, 0.0, 0.125, 7.0)
    ]
    reasons.append(Reason("ACTIVITY_VOLUME", "activityCount", 1234.0, 1.0))
    stored = [{"code": reason.code, "value": reason.value, "points": reason.points} for reason in reasons]
    site.fill("fan-00042", scores=1, reasons=stored)
    _, page = open_fan(site, tab)
    lines = page.locator(".reasons li:not(.edge) .what").all_inner_texts()
    assert lines.pop() == "everything else"
    assert [line.removesuffix(reason.code).strip() for line, reason in zip(lines, reasons, strict=True)] == [
        describe(reason).split(": ", 1)[1] for reason in reasons
    ]


def test_what_was_asked_is_listed(site, tab):
    site.fill("fan-00042")
    site.sources.fan_identity.seconds = 0.02
    _, page = open_fan(site, tab)
    rows = page.locator("table.asked tr:not(.group)").filter(has=page.locator("td"))
    functions = rows.locator("td:first-child").all_inner_texts()
    assert functions == [
        "getArmScore",
        "getAccountFanscoreGlobalUserId",
        "getAccountFanscoreMemberId",
        "getArmScore",
        "getDiscoEventId",
        "getEventDemandRecord",
        "getBotOrNotCursor",
        "getBotOrNot",
        "calcAccountScore",
        "getFanHistory",
    ]
    took = dict(zip(functions, values(rows), strict=True))
    assert took["getFanHistory"] > 10
    assert "not needed" in rows.nth(2).inner_text()


def test_an_unknown_fan_is_said_to_be_unknown(site, tab):
    page = tab().open(fans_url(site, "nobody"), site.token)
    expect(page.get_by_role("heading", name="Unknown fan")).to_be_visible()
    expect(page.locator("#shown bdi")).to_have_text("nobody")
    assert page.locator(".problem").count() == 0
    assert page.locator(".tiles").count() == 0


@pytest.mark.parametrize("token", ["wrong", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."])
def test_a_wrong_token_is_said_to_be_wrong(site, tab, token):
    site.fill("fan-00042")
    watched = tab()
    page = watched.open(fans_url(site, "fan-00042"), token)
    expect(page.get_by_role("alert")).to_have_text("The token is not valid here, or has expired. Paste a new one.")
    assert page.locator("#shown").inner_text() == ""
    (complaint,) = watched.take_complaints()
    assert "401" in complaint


def test_a_token_no_header_can_carry_is_not_sent(site, tab):
    watched = tab()
    page = watched.open(fans_url(site, "fan-00042"), "tök en")
    expect(page.get_by_role("alert")).to_contain_text("This is no token")
    assert not any(url.endswith("/graphql") for url in watched.requested)


def test_another_fans_token_shows_nothing(site, tab):
    site.fill("fan-00042")
    page = tab().open(fans_url(site, "fan-00042"), site.fan_token("fan-00043"))
    expect(page.get_by_role("alert")).to_contain_text("This token may not see this fan")
    assert page.locator("#shown").inner_text() == ""


def test_a_fans_own_token_shows_the_fan_but_not_who_was_asked(site, tab):
    site.fill("fan-00042")
    page = tab().open(fans_url(site, "fan-00042"), site.fan_token("fan-00042"))
    expect(page.locator(".reasons")).to_be_visible()
    expect(page.get_by_text("The API tells this to services, not to fans.")).to_be_visible()


def test_with_the_table_away_the_account_risk_still_shows(site, tab):
    site.fill("fan-00042")
    site.sources.fan_identity.down = True
    page = tab().open(fans_url(site, "fan-00042"), site.token)
    expect(shown(page, "Account risk").locator(".figure data")).to_have_text("5")
    expect(shown(page, "Account score")).to_contain_text("does not say that the fan is unknown")
    expect(page.locator("section", has_text="Scores over time").first).to_contain_text("Could not be looked up")
    assert page.get_by_text("Unknown fan").count() == 0


def test_with_everything_away_nobody_is_called_unknown(site, tab):
    for name in ("fan_identity", "account_fanscore", "arm"):
        getattr(site.sources, name).down = True
    page = tab().open(fans_url(site, "fan-00042"), site.token)
    expect(page.get_by_role("alert")).to_contain_text("This does not say that the fan is unknown")
    assert page.locator("#shown").inner_text() == ""


def test_with_the_cache_away_its_boost_is_said_to_be_missing(site, tab):
    site.fill("fan-00042")
    site.sources.arm.down = True
    _, page = open_fan(site, tab)
    expect(shown(page, "Account risk")).to_contain_text("Could not be looked up")
    expect(shown(page, "Account fan score")).to_contain_text("away, so counted as 0: arm")


def test_a_stale_score_is_marked(site, tab):
    site.fill("fan-00042")
    site.sources.arm.scores["fan-00042"] = ArmScore(4, None, None, stale=True)
    _, page = open_fan(site, tab)
    expect(shown(page, "Account risk").locator(".stale")).to_contain_text("stale")
    expect(shown(page, "Account risk")).to_contain_text("of unknown age")


def test_a_server_that_is_gone_is_said_to_be(site, tab):
    watched = tab()
    page = watched.open(f"{site.address}/fans")
    page.locator("#fan").fill("fan-00042")
    page.locator("#token").fill("some.token")
    page.context.set_offline(True)
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    assert page.get_attribute("main", "aria-busy") == "false"
    assert all("Failed to load resource" in one for one in watched.take_complaints())


@pytest.mark.parametrize(
    "user", [HOSTILE, "a#b/c?d=e&f", "%", "\u0645\u0634\u062c\u0639", "a\nb", "__proto__", "x" * 900]
)
def test_ids_are_data(site, tab, user):
    site.fill(user, scores=2)
    _, page = open_fan(site, tab, user)
    assert page.locator("h2 bdi").text_content() == (user if len(user) <= 200 else user[:200] + "…")
    assert page.locator("main script, main img").count() == 0
    assert page.title() == "A fan's scores · fan-identity"


def test_what_the_api_answers_is_text(site, tab):
    site.fill(
        "fan-00042",
        scores=2,
        activityType=HOSTILE,
        clusterId=HOSTILE,
        modelVersion=HOSTILE,
        reasons=[
            {"code": HOSTILE, "value": 1.0, "points": -2.0},
            {"code": "constructor", "value": None, "points": 1.0},
        ],
    )
    site.sources.arm.scores["fan-00042"] = ArmScore(2, 0, HOSTILE)
    _, page = open_fan(site, tab)
    page.locator("summary").click()
    assert page.locator("main script, main img").count() == 0
    assert page.title() == "A fan's scores · fan-identity"
    expect(page.locator(".reasons li").nth(1)).to_contain_text("<script>document.title='owned'</script>")
    expect(page.locator(".reasons")).to_contain_text("constructor = unknown")
    assert "<script>" in shown(page, "Cluster").inner_text()
    assert "<script>" in shown(page, "Account risk").inner_text()


def test_neither_id_nor_token_is_in_any_address(site, tab):
    site.fill("fan-secret-id")
    watched, page = open_fan(site, tab, "fan-secret-id")
    assert watched.requested
    for url in watched.requested:
        assert url.startswith(site.address + "/")
        assert "fan-secret-id" not in url.partition("#")[0]
        assert site.token not in url
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_forgetting_the_token(site, tab):
    site.fill("fan-00042")
    _, page = open_fan(site, tab)
    page.get_by_role("button", name="Forget token").click()
    assert page.evaluate("sessionStorage.length") == 0
    assert page.get_by_label("Token").input_value() == ""
    assert page.locator("#shown").inner_text() == ""


def test_keyboard_alone_is_enough(site, tab):
    items = site.fill("fan-00042")
    watched = tab()
    page = watched.open(f"{site.address}/fans")
    keyboard = page.keyboard
    keyboard.press("Tab")
    keyboard.insert_text("fan-00042")
    keyboard.press("Tab")
    keyboard.insert_text(site.token)
    keyboard.press("Enter")
    expect(page.locator(".reasons")).to_be_visible()
    for _ in range(3):  # Show, Forget token, the plot: one stop, however many scores
        keyboard.press("Tab")
    focused = page.locator(":focus")
    expect(focused).to_have_attribute("role", "option")
    expect(focused).to_have_attribute("aria-selected", "true")
    assert f"account score {items[-1]['accountScore']:.2f}" in focused.get_attribute("aria-label")
    expect(page.locator(".tip")).to_be_visible()
    for key, number in (
        ("ArrowLeft", 10),
        ("Home", 0),
        ("ArrowRight", 1),
        ("ArrowLeft", 0),
        ("ArrowLeft", 0),
        ("End", 11),
    ):
        keyboard.press(key)
        expect(page.locator(".reasons .total data")).to_have_text(f"{items[number]['accountScore']:.2f}")
    keyboard.press("Escape")
    expect(page.locator(".tip")).to_be_hidden()
    keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("As a table (12)")
    keyboard.press("Enter")
    expect(page.locator("details table")).to_be_visible()


def test_the_mouse_chooses_the_nearest_score(site, tab):
    items = site.fill("fan-00042")
    _, page = open_fan(site, tab)
    expect(page.locator(".why")).to_contain_text("Of the newest score")
    box = page.locator(".plot svg").bounding_box()
    page.mouse.click(box["x"] + 40, box["y"] + 60)
    expect(page.locator(".reasons .total data")).to_have_text(f"{items[0]['accountScore']:.2f}")
    expect(page.locator(".why")).to_contain_text("Of the score you chose")


def test_many_scores_are_asked_for_in_two_steps(site, tab):
    site.fill("fan-00042", scores=700, every_ms=1000)
    _, page = open_fan(site, tab)
    expect(page.locator("[role=option]")).to_have_count(100)
    page.get_by_role("button", name="Show up to 200").click()
    expect(page.locator("[role=option]")).to_have_count(200)
    assert page.get_by_role("button", name="Show up to 200").count() == 0
    expect(page.locator("summary")).to_have_text("As a table (the newest 200)")


@pytest.mark.parametrize("scores", [1, 2, 100])
def test_the_plot_stays_in_its_place(site, tab, scores):
    site.fill("fan-00042", scores=scores, every_ms=1, accountScore=250.0, bonScore=-3.0)
    _, page = open_fan(site, tab)
    assert page.locator("[role=option]").count() == scores
    outside = page.locator(".plot svg").evaluate(
        """svg => { const room = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("circle, text, path")].map(node => node.getBoundingClientRect())
            .filter(box => box.left < room.left - 1 || box.right > room.right + 1 || box.top < room.top - 1
                || box.bottom > room.bottom + 1).length }"""
    )
    assert outside == 0


def test_scores_without_a_time_or_parts_do_not_stop_the_page(site, tab):
    site.fill(
        "fan-00042", scores=2, occurredAt="long ago", armRisk=None, bonScore=None, reasons=None, activityType=None
    )
    _, page = open_fan(site, tab)
    expect(page.get_by_text("None of the scores has a time to plot.")).to_be_visible()
    expect(shown(page, "Bot-or-not")).to_contain_text("not said")


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_is_wider_than_the_screen(site, tab, width):
    user = "fan-" + "0123456789" * 12
    site.fill(user, clusterId="cluster" * 20, activityType="purchase" * 12)
    _, page = open_fan(site, tab, user, viewport={"width": width, "height": 844})
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".plot svg").bounding_box()["width"] <= width


def luminance(colour):
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(site, tab, scheme):
    # WCAG 2.2, 1.4.3: contrast at least 4.5 to 1.
    site.fill("fan-00042")
    site.sources.arm.scores["fan-00042"] = ArmScore(4, 0, "m", stale=True)
    _, page = open_fan(site, tab, color_scheme=scheme)
    pairs = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter(node => node.checkVisibility()
            && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())).map(node => {
            let behind = node; const clear = "rgba(0, 0, 0, 0)";
            while (behind && getComputedStyle(behind).backgroundColor === clear) behind = behind.parentElement;
            const style = getComputedStyle(node);
            const front = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
            return [front, getComputedStyle(behind).backgroundColor]; })"""
    )
    assert len(pairs) > 50
    for front, back in set(map(tuple, pairs)):
        lighter, darker = sorted((luminance(front), luminance(back)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (front, back)


def test_everything_has_a_name_and_a_place(site, tab):
    site.fill("fan-00042")
    _, page = open_fan(site, tab)
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("banner").count() == 1
    assert page.get_by_role("form", name="Which fan").count() == 1
    for heading in ("Scores over time", "Why this score", "What was asked for this page"):
        assert page.get_by_role("region", name=heading).count() == 1
    assert page.get_by_role("listbox", name="Scores over time").get_by_role("option").count() == 12
    assert page.get_by_role("table", name="Who was asked").count() == 1
    levels = page.locator("h1, h2, h3").evaluate_all("nodes => nodes.map(node => node.tagName)")
    assert levels == ["H1", "H2", "H3", "H3", "H3"]


def test_the_last_fan_asked_for_is_the_one_shown(site, tab):
    site.fill("slow")
    site.fill("fast", scores=3)
    _, page = open_fan(site, tab, "slow")
    page.evaluate("location.hash = 'slow-again'; location.hash = 'fast'")
    expect(page.locator("h2 bdi")).to_have_text("fast")
    page.go_back()
    expect(page.get_by_role("heading", name="Unknown fan")).to_be_visible()
    page.go_back()
    expect(page.locator("h2 bdi")).to_have_text("slow")
