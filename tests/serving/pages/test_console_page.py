"""The operators' page in Chromium: what it shows is in the store, and what is done on it is done there."""

import json
import re
import time

import pytest
from playwright.sync_api import expect

from fan_identity.domain.import_summary import record_json
from fan_identity.domain.imports import ImportKind
from fan_identity.io.import_versions import ImportVersions
from fan_identity.serving.http.development import OPERATOR, DevelopmentIssuer

from .operated import HOSTILE, PATIENCE, Operated, served

SECTIONS = {
    "now": "Workers",
    "dead-letters": "By worker and reason",
    "flags": "Flags",
    "imports": "version",
    "fans": "Fan",
    "audit": "chain",
}


@pytest.fixture(scope="module")
def sold(commands, sale, tmp_path_factory) -> Operated:
    """A small sale, scored, with two imports of bot-or-not scores after it."""
    folder = tmp_path_factory.mktemp("operated")
    lines = sale(30, 3, 7)
    (folder / "sale.jsonl").write_bytes(b"\n".join(lines))
    site = Operated(folder / "fans.db", DevelopmentIssuer.started(folder))
    assert commands("score", folder / "sale.jsonl", "--store", site.flag).code in (0, 1)
    fans = sorted({item["globalUserId"] for item in site.table.latest_items()})
    for day, factor in ((25, 29), (26, 53)):
        file = folder / f"{day}.csv"
        rows = [f"{fan},{number * factor % 100 / 100},2026-11-{day}T10:00:00Z" for number, fan in enumerate(fans)]
        file.write_text("\n".join(["globalUserId,bonScore,updatedAt", *rows]))
        loose = ("--max-arm-changes", "1", "--max-unknown", "1")
        done = commands("imports", "start", "botOrNot", f"file://{file}", "--store", site.flag, *loose)
        assert done.code == 0, done.err
    return site


@pytest.fixture(scope="module")
def quick():
    """The server samples, and so the page asks, ten times as often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fan_identity.serving.console.flow.STEP_MS", 500)
        patch.setattr("fan_identity.serving.console.opening._FRESH_SECONDS", {"sqlite": 0.2})
        yield


@pytest.fixture(scope="module")
def site(sold, quick):
    with served(sold) as running:
        yield running


@pytest.fixture
def letters(site):
    """No letters before and after."""
    site.forget_letters()
    yield site
    site.forget_letters()


def opened(site, tab, section="now", token=None, **options):
    watched = tab(**options)
    page = watched.open(f"{site.address}/console#{section}", token or site.token)
    expect(page.locator(f"#section-{section.partition('?')[0]}")).to_contain_text(
        SECTIONS[section.partition("?")[0]], timeout=PATIENCE * 1_000
    )
    return watched, page


def summary_shows(page, text):
    """The numbers by reason are counted in the background: asked for until they say so."""
    deadline = time.monotonic() + PATIENCE
    groups = page.locator("#card-by-worker-and-reason + div")
    while text not in groups.inner_text():
        assert time.monotonic() < deadline, groups.inner_text()
        page.goto(page.url.partition("#")[0] + "#now")
        page.goto(page.url.partition("#")[0] + "#dead-letters")
        page.wait_for_timeout(200)


def test_nothing_is_shown_without_a_good_token(site, tab):
    watched = tab()
    page = watched.open(f"{site.address}/console")
    expect(page.get_by_label("Token")).to_be_focused()
    assert page.locator("#sections").is_hidden()
    for token, words in (
        ("not.a.token", "not valid here"),
        ("t\u00f6ken", "characters that tokens never have"),
        (site.issuer.token_of_fan("fan-00042", "sub"), "not an operator's"),
        (site.issuer.token_of_service(), "not an operator's"),
    ):
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text(words)
        assert page.locator("#sections").is_hidden()
    assert all("Failed to load resource" in one for one in watched.take_complaints())
    page.get_by_label("Token").fill(site.token)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#who")).to_contain_text(OPERATOR)
    assert [url for url in watched.requested if site.token in url] == []
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_focused()
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]


def test_a_token_that_expires_leads_to_the_login_and_says_so(site, tab):
    watched, page = opened(site, tab)
    page.evaluate("sessionStorage.setItem('fan-identity-token', 'gone.by.now')")
    expect(page.get_by_role("alert")).to_contain_text("not valid here, or has expired")
    assert page.locator("main").inner_text().count("Workers") == 0
    assert all("Failed to load resource" in one for one in watched.take_complaints())


def test_the_flow_is_told_as_it_changes(site, tab):
    site.report(counts={"received": 1_000, "scored": 1_000})
    _, page = opened(site, tab)
    row = page.locator("#section-now tr", has_text="scoreUsers")
    expect(row).to_contain_text("1 on DirectRunner")
    slider = page.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("scored"))
    before = int(slider.get_attribute("aria-valuemax"))
    scored = 1_000
    headline = page.locator(".headline")
    deadline = time.monotonic() + PATIENCE
    while "Scores flow" not in headline.inner_text():
        assert time.monotonic() < deadline, headline.inner_text()
        scored += 300
        site.report(counts={"received": scored, "scored": scored, "dead_lettered.malformed": scored - 1_000})
        page.wait_for_timeout(300)
    assert "a second over the last minute" in headline.inner_text()
    expect(page.locator(".findings")).to_contain_text("dead letters in the last minute")
    expect(row.locator("strong.problem")).not_to_be_empty()
    assert int(slider.get_attribute("aria-valuemax")) > before
    line = page.locator(".panel > svg path.line.s0").first
    expect(line).to_have_attribute("d", re.compile("L"), timeout=PATIENCE * 1_000)  # two moments, joined
    # What a process that reports no more did is a gap, and it is said to be silent.
    site.report(process="lost", updated_at=int(time.time() * 1_000) - 30_000)
    expect(page.locator(".findings")).to_contain_text("1 process fell silent", timeout=PATIENCE * 1_000)


@pytest.mark.slow
def test_a_real_workers_scores_are_seen_to_flow(cli, sale, site, tab, tmp_path):
    _, page = opened(site, tab)
    cli.start("run", "scoreUsers", "--store", site.flag, "--streaming")
    row = page.locator("#section-now tr", has=page.get_by_text("scoreUsers", exact=True))
    expect(row).to_contain_text("on DirectRunner", timeout=PATIENCE * 1_000)
    later = tmp_path / "later.jsonl"
    later.write_bytes(b"\n".join(sale(40, 2, 8)))
    assert cli("run", "enqueueFromStream", "--source", f"file://{later}", "--store", site.flag).code in (0, 1)
    expect(page.locator(".headline")).to_contain_text("Scores flow", timeout=PATIENCE * 1_000)


def test_the_crosshair_moves_by_keys_and_the_values_are_a_table_too(site, tab):
    site.report(counts={"scored": 5})
    _, page = opened(site, tab)
    slider = page.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuemax", re.compile(r"^([3-9]|\d{2,})$"), timeout=PATIENCE * 1_000)
    slider.focus()
    page.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuenow", "0")
    first = slider.get_attribute("aria-valuetext")
    assert first.startswith("At ") and "ago" in first and "Waiting in queues: accountActivityQueue" in first
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuenow", "1")
    page.keyboard.press("Escape")
    expect(slider).to_contain_text("Now: ")
    page.get_by_role("button", name="Pause").click()
    told = slider.get_attribute("aria-valuemax")
    page.get_by_text("The plots as a table").click()
    page.get_by_role("button", name="Go on").click()
    region = page.get_by_role("region", name="The plots as a table")
    expect(region.locator("tbody tr").nth(2)).to_be_visible()
    heads = region.locator("thead th").all_inner_texts()
    assert heads[0] == "time (UTC)"
    assert "Flow: scored (records a second)" in heads
    assert int(told) >= 3


def test_a_letter_is_looked_into_and_its_payload_is_an_action(letters, tab):
    letter = letters.letter(reason="unsendable", payload=b'{"globalUserId":"fan-\xc3\xa9","activityId":"a-1"}')
    _, page = opened(letters, tab, "dead-letters")
    page.get_by_role("button", name="Look at the letter").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("the queue refused it")
    expect(dialog).to_contain_text(letter.dead_letter_id)
    expect(dialog).to_contain_text("kafka://broker:9092/activities#3")
    dialog.get_by_text("Stack", exact=True).click()
    expect(dialog.locator("pre")).to_contain_text("Traceback (most recent call last)")
    assert "globalUserId" not in dialog.inner_text()
    assert letters.audited("deadLetters.reveal") == []
    dialog.get_by_role("button", name="Reveal").click()
    expect(dialog.get_by_role("region", name="Payload")).to_have_text(letter.payload.decode())
    lines = letters.audited("deadLetters.reveal")
    assert {(line.subject, line.target) for line in lines} == {(lines[0].subject, letter.dead_letter_id)}
    assert OPERATOR in lines[0].subject
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(":focus")).to_have_attribute("aria-label", re.compile("Look at the letter"))


def test_bytes_that_are_no_text_are_shown_in_base64(letters, tab):
    letters.letter(payload=b"\xff\xfe\x00")
    _, page = opened(letters, tab, "dead-letters")
    page.get_by_role("button", name="Look at the letter").click()
    page.get_by_role("button", name="Reveal").click()
    expect(page.get_by_role("region", name="Payload")).to_have_text("//4A")


def test_letters_are_searched_and_paged(letters, tab):
    for _ in range(60):
        letters.letter(reason="unsendable")
    rare = letters.letter(reason="too_large", worker="scoreUsers", activity_id="the-one")
    _, page = opened(letters, tab, "dead-letters")
    rows = page.locator("#card-search ~ div table tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(61)
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)
    form = page.get_by_role("search")
    for label, text in (("Reason", "too_large"), ("Worker", "scoreUsers"), ("Activity", "the-one")):
        form.get_by_label(label).fill(text)
        page.keyboard.press("Enter")
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("too_large")
        form.get_by_label(label).fill("")
    form.get_by_label("From").fill("2099-01-01T00:00")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#section-dead-letters")).to_contain_text("No dead letter matches.")
    form.get_by_label("From").fill("")
    form.get_by_label("State").select_option("redriven")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#section-dead-letters")).to_contain_text("No dead letter matches.")
    # A search stands in the address, so that it can be sent to a colleague.
    page.goto(f"{letters.address}/console#dead-letters?reason=too_large")
    expect(rows).to_have_count(1)
    assert form.get_by_label("Reason").input_value() == "too_large"
    assert letters.letters.get(rare.dead_letter_id) is not None


def test_all_that_match_are_sent_again_after_a_confirmation_that_names_their_number(letters, tab):
    for _ in range(3):
        letters.letter(reason="unsendable")
    letters.letter(reason="too_large")
    _, page = opened(letters, tab, "dead-letters")
    summary_shows(page, "4 letters wait")
    page.get_by_role("link", name="unsendable").click()
    expect(page.get_by_role("button", name="Redrive all that match (3)")).to_be_visible()
    page.get_by_role("button", name="Redrive all that match (3)").click()
    dialog = page.get_by_role("dialog", name="Redrive 3 dead letters?")
    expect(dialog).to_contain_text("unsendable")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert letters.waiting() == 4
    assert letters.audited("deadLetters.redrive") == []
    page.get_by_role("button", name="Redrive all that match (3)").click()
    dialog.get_by_role("button", name="Redrive 3 dead letters").click()
    told = page.locator("#section-dead-letters .told")
    expect(told).to_have_text(re.compile("3 sent again"), timeout=PATIENCE * 1_000)
    assert (letters.waiting(), letters.waiting("too_large")) == (1, 1)
    expect(page.locator("#section-dead-letters")).to_contain_text("No dead letter matches.")
    outcomes = [line.outcome for line in letters.audited("deadLetters.redrive")]
    assert outcomes == ["done", "begun"]
    page.get_by_role("link", name="Audit log").click()
    expect(page.locator("#section-audit tbody tr").first).to_contain_text("deadLetters.redrive")
    expect(page.locator("#section-audit")).to_contain_text("The chain is whole", timeout=PATIENCE * 1_000)


def test_a_redrive_by_keyboard_alone(letters, tab):
    letters.letter()
    letters.letter(reason="too_large")
    page = tab().open(f"{letters.address}/console")
    keyboard, focused = page.keyboard, page.locator(":focus")
    expect(page.get_by_label("Token")).to_be_focused()
    keyboard.insert_text(letters.token)
    keyboard.press("Enter")
    expect(page.locator("#sections")).to_be_visible()

    def tab_to(name):
        for _ in range(60):
            keyboard.press("Tab")
            text, outline = page.evaluate(
                """() => {
                    const { activeElement: node } = document;
                    return [node.getAttribute('aria-label') ?? node.textContent, getComputedStyle(node).outlineWidth];
                }"""
            )
            if name in text and len(text) < 200:
                assert outline == "3px", name
                return
        pytest.fail(f"Tab does not lead to {name}")

    tab_to("Dead letters")
    keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    expect(page.get_by_role("button", name="Look at the letter")).to_have_count(2)
    tab_to("Select the letter of enqueueFromStream, unsendable")
    keyboard.press("Space")
    expect(page.get_by_role("button", name="Redrive selected (1)")).to_be_enabled()
    for _ in range(20):
        keyboard.press("Shift+Tab")
        if focused.inner_text() == "Redrive selected (1)":
            break
    keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Redrive 1 dead letter?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    for _ in range(5):  # the focus does not leave the dialog for what is behind it
        keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        )
    dialog.get_by_role("button", name="Cancel").focus()
    keyboard.press("Tab")
    expect(dialog.get_by_role("button", name="Redrive 1 dead letter")).to_be_focused()
    keyboard.press("Enter")
    expect(page.locator("#section-dead-letters .told")).to_contain_text("1 sent again", timeout=PATIENCE * 1_000)
    assert letters.waiting() == 1
    expect(page.locator(":focus")).to_contain_text("1 sent again")


def test_who_may_only_look_has_nothing_to_press(letters, tab):
    letters.letter()
    _, page = opened(letters, tab, "dead-letters", letters.token_with("console:read"))
    expect(page.locator("#who")).to_contain_text("lena, to look only")
    page.get_by_role("button", name="Look at the letter").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("needs the scope console:act")
    assert dialog.get_by_role("button").all_inner_texts() == ["Close"]
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Imports").click()
    expect(page.get_by_role("button", name="What bot-or-not scores").first).to_be_visible()
    assert page.get_by_role("button", name=re.compile("Redrive|Roll back|Switch")).filter(visible=True).count() == 0
    assert page.locator("input[type=checkbox]").count() == 0


def test_without_a_flag_server_that_is_said(site, tab):
    _, page = opened(site, tab, "flags")
    expect(page.locator("#section-flags")).to_contain_text("No flag server is set up here, so every worker is on.")


def test_an_imports_comparison_is_the_stored_one(site, tab):
    versions = ImportVersions(site.table, ImportKind.BOT_OR_NOT)
    newest = max(versions.records(), key=lambda record: record.version)
    stored = record_json(newest)
    _, page = opened(site, tab, "imports")
    row = page.locator("#section-imports tbody tr", has_text=newest.version)
    expect(row).to_contain_text(stored["headline"][0])
    row.get_by_role("button", name=f"What bot-or-not scores, {newest.version} changed").click()
    card = page.locator("#section-imports h3", has_text=newest.version).locator("..")
    assert card.locator(".sentences li").all_inner_texts() == stored["headline"]
    numbers = card.locator(".matrix tbody td").all_inner_texts()
    shown = [int(re.sub(r"\D", "", text)) for text in numbers]
    assert shown == [fans for level in stored["comparison"]["arm"] for fans in level]
    examples = card.get_by_role("table", name="Fans whose ARM changes").locator("tbody tr")
    assert examples.count() == len(stored["comparison"]["examples"]) > 0
    assert stored["comparison"]["examples"][0]["globalUserId"] not in page.locator("main").inner_text()


@pytest.mark.slow
def test_an_import_is_rolled_back_and_the_version_before_comes_back(site, tab):
    versions = ImportVersions(site.table, ImportKind.BOT_OR_NOT)
    before = versions.pointer().import_version
    _, page = opened(site, tab, "imports")
    back = page.get_by_role("button", name=f"Roll back bot-or-not scores, {before}")
    replaced = versions.record(before).replaced
    back.click()
    dialog = page.get_by_role("dialog", name="Roll back bot-or-not scores?")
    expect(dialog).to_contain_text(replaced)
    expect(dialog).to_contain_text("fans it touches")
    dialog.get_by_role("button", name="Cancel").click()
    assert versions.pointer().import_version == before
    back.click()
    dialog.get_by_role("button", name=f"Roll back to {replaced}").click()
    told = page.locator("#section-imports .told")
    expect(told).to_contain_text(f"{replaced} is active again", timeout=PATIENCE * 2_000)
    assert versions.pointer().import_version == replaced
    assert versions.record(before).state == "rolledBack"
    expect(page.locator("#section-imports tbody tr", has_text=replaced)).to_contain_text("active")
    assert [line.outcome for line in site.audited("imports.rollback")] == ["done", "begun"]


def test_whatever_is_shown_is_text(letters, tab):
    letters.letter(
        worker=HOSTILE,
        reason=HOSTILE,
        error=HOSTILE,
        stack=HOSTILE,
        source=HOSTILE,
        position=HOSTILE,
        payload=HOSTILE.encode(),
    )
    long = "x" * 5_000
    letters.letter(reason="unsendable", error=long, stack=long, position="\u0645\u0634\u062c\u0639" * 300)
    letters.report(process="evil", code_version=HOSTILE, runner=HOSTILE, queue=HOSTILE)
    watched, page = opened(letters, tab, "dead-letters")
    for look in page.get_by_role("button", name="Look at the letter").all():
        look.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("Stack", exact=True).click()
        dialog.get_by_role("button", name="Reveal").click()
        expect(dialog.get_by_role("region", name="Payload")).to_be_visible()
        assert page.locator("main script, main img, dialog script, dialog img").count() == 0
        assert "\u202e" not in page.locator("body").inner_text()
        page.keyboard.press("Escape")
    page.goto(f"{letters.address}/console#now")
    expect(page.locator("#section-now")).to_contain_text("<script>document.title='owned'")
    page.goto(f"{letters.address}/console#dead-letters?worker=<img src=x onerror=alert(1)>&state=nonsense&x=1")
    expect(page.locator("#section-dead-letters .problem").first).to_contain_text("The server refused")
    assert page.locator("main script, main img").count() == 0
    assert "owned" not in page.title()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert all("400 (Bad Request)" in one for one in watched.take_complaints())
    letters.report(process="evil", ended=True, code_version="0.1.0", updated_at=int(time.time() * 1_000) - 80_000_000)


def test_no_answer_is_said_and_what_was_shown_stays(site, tab):
    site.report()
    watched, page = opened(site, tab)
    expect(page.locator("#section-now")).to_contain_text("scoreUsers")
    page.context.set_offline(True)
    connection = page.locator("#connection")
    expect(connection).to_contain_text("the server cannot be reached", timeout=PATIENCE * 1_000)
    expect(connection).to_contain_text("What is shown is as of")
    expect(page.locator("#section-now")).to_contain_text("scoreUsers")
    page.get_by_role("link", name="Audit log").click()
    expect(page.locator("#section-audit")).to_contain_text("No answer: the server cannot be reached")
    page.context.set_offline(False)
    expect(connection).to_be_hidden(timeout=PATIENCE * 1_000)
    assert all("Failed to load resource" in one for one in watched.take_complaints())


def test_a_part_that_fails_is_said_where_it_would_be(site, tab):
    watched, page = opened(site, tab)
    error = {"errors": [{"message": "dead letters are not available", "errorType": "503", "errorInfo": {"code": "X"}}]}
    page.route("**/console/api/dead-letters*", lambda route: route.fulfill(status=503, body=json.dumps(error)))
    page.get_by_role("link", name="Dead letters").click()
    expect(page.locator("#card-search ~ div .problem")).to_contain_text(
        "could not answer: dead letters are not available"
    )
    page.get_by_role("link", name="Imports").click()
    expect(page.locator("#section-imports")).to_contain_text("bot-or-not scores")
    assert all("Failed to load resource" in one for one in watched.take_complaints())


def test_letters_that_are_not_counted_yet_are_not_told_as_none(letters, tab):
    letters.letter()
    uncounted = json.dumps({"asOf": None, "total": None, "groups": []})
    watched = tab()
    watched.page.route("**/console/api/dead-letters/summary", lambda route: route.fulfill(body=uncounted))
    unknown = json.dumps({"count": None, "to": "2026-11-27T04:00:00.000Z"})  # where counting takes too long
    watched.page.route("**/console/api/dead-letters/count?*", lambda route: route.fulfill(body=unknown))
    page = watched.open(f"{letters.address}/console#dead-letters", letters.token)
    section = page.locator("#section-dead-letters")
    expect(section).to_contain_text("Being counted")
    page.get_by_role("button", name="Redrive all that match").click()
    expect(section.locator(".told")).to_contain_text("still being counted")
    assert page.get_by_role("dialog").count() == 0
    assert letters.waiting() == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("desktop", {"viewport": {"width": 1280, "height": 900}}),
        ("phone", {"viewport": {"width": 360, "height": 740}, "has_touch": True}),
        ("dark", {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"}),
    ],
)
def test_it_fits_and_can_be_read(letters, tab, tmp_path, name, options):
    for _ in range(3):
        letters.letter()
    letters.report(counts={"scored": 5})
    watched, page = opened(letters, tab, **options)
    for section, words in SECTIONS.items():
        page.goto(f"{letters.address}/console#{section}")
        expect(page.locator(f"#section-{section}")).to_contain_text(words, timeout=PATIENCE * 1_000)
        if section == "imports":
            page.get_by_role("button", name="What bot-or-not scores").first.click()
            expect(page.locator(".matrix")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), section
        assert page.evaluate(_FAULTS) == [], section
        page.screenshot(path=tmp_path / f"{name}-{section}.png", full_page=True)
    page.goto(f"{letters.address}/console#dead-letters")
    page.get_by_role("button", name="Look at the letter").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("Payload")
    assert page.evaluate(_FAULTS) == []
    page.screenshot(path=tmp_path / f"{name}-letter.png")
    assert watched.complaints == []


def test_no_width_needs_to_be_scrolled(letters, tab):
    letters.letter(reason="x" * 64, error="y" * 3_000)
    letters.report("enqueueFromSQJourneyStream", queue=None, source="kafka:" + "z" * 200)
    _, page = opened(letters, tab)
    for width in (320, 360, 641, 700, 820, 961, 1000, 1100):
        page.set_viewport_size({"width": width, "height": 800})
        for section, words in SECTIONS.items():
            page.goto(f"{letters.address}/console#{section}")
            expect(page.locator(f"#section-{section}")).to_contain_text(words, timeout=PATIENCE * 1_000)
            if section == "dead-letters":
                expect(page.get_by_role("button", name="Look at the letter")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (width, section)


def test_lines_differ_by_more_than_their_colour(site, tab):
    _, page = opened(site, tab)
    dashes = page.evaluate(
        """() => [0, 1, 2, 3, 4].map((style) => {
            const line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
            line.setAttribute('class', `line s${style}`);
            document.querySelector('.panels').append(line);
            return getComputedStyle(line).strokeDasharray;
        })"""
    )
    assert len(set(dashes)) == 5


def test_nothing_moves_for_who_wants_no_motion(site, tab):
    _, page = opened(site, tab, reduced_motion="reduce")
    page.get_by_role("link", name="Flags").click()
    assert page.evaluate("document.getAnimations().length") == 0


# What a person with a screen reader, or poor sight, would stumble over: nameless controls, skipped headings, tables
# without headers, ids twice, text of too little contrast (WCAG 2.2: 1.4.3, 1.3.1, 4.1.2, 2.5.8).
_FAULTS = """() => {
  const faults = [];
  const seen = (node) => node.checkVisibility({ visibilityProperty: true }) && !node.closest('.unseen, .skip');
  const labelOf = (node) => (node.getAttribute('aria-label') ?? '') + (node.labels?.[0]?.textContent ?? '');
  const nameOf = (node) => labelOf(node) + node.textContent;
  for (const node of document.querySelectorAll('button, a, input, select, [role=slider], summary')) {
    if (!seen(node)) continue;
    if (!nameOf(node).trim()) faults.push(`no name: ${node.outerHTML.slice(0, 80)}`);
    const { width, height } = (node.closest('label') ?? node).getBoundingClientRect();
    if (node.tagName !== 'A' && Math.min(width, height) < 24) faults.push(`small: ${node.outerHTML.slice(0, 80)}`);
  }
  for (const table of document.querySelectorAll('table')) {
    if (!seen(table)) continue;
    const isNamed = table.caption?.textContent && table.querySelector('thead th[scope=col]');
    if (!isNamed || ![...table.tBodies[0].rows].every((row) => row.querySelector('th[scope=row]'))) {
      faults.push(`a table without headers: ${table.textContent.slice(0, 80)}`);
    }
  }
  const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`twice: ${id}`);
  for (const node of document.querySelectorAll('[aria-labelledby], label[for]')) {
    const id = node.getAttribute('aria-labelledby') ?? node.getAttribute('for');
    if (!document.getElementById(id)) faults.push(`names nothing: ${id}`);
  }
  let level = 0;
  for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
    if (!heading.checkVisibility() || heading.closest('dialog')) continue;
    const own = Number(heading.tagName[1]);
    if (own > level + 1) faults.push(`a heading skipped before ${heading.textContent}`);
    level = own;
  }
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => {
    const part = (value) => ((value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgb(getComputedStyle(node).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !seen(node) || node.closest('option, :disabled')) continue;
    const style = getComputedStyle(node);
    const [one, other] = [light(rgb(node.closest('svg') ? style.fill : style.color)), light(behind(node))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) faults.push(`${contrast.toFixed(2)}: ${walker.currentNode.data.slice(0, 40)}`);
  }
  return [...new Set(faults)];
}"""
