"""The operators' page with a real flag server: what a button does there, a worker does within two seconds."""

import uuid

import pytest
from playwright.sync_api import expect

from fan_identity.io.flag_admin import ADMIN_TOKEN_ENV
from fan_identity.io.flags import TOKEN_ENV
from fan_identity.serving.http.development import DevelopmentIssuer

from ..serving.pages.conftest import chromium, tab
from ..serving.pages.operated import PATIENCE, Operated, served
from .unleash import TOKEN, UNLEASH, Toggle

__all__ = ["chromium", "tab"]  # fixtures


@pytest.fixture
def toggles(server, monkeypatch):
    """Toggles of the test's own prefix: of all workers but two there are none."""
    server("unleash")
    prefix = f"page-{uuid.uuid4().hex[:12]}."
    monkeypatch.setenv(TOKEN_ENV, TOKEN)
    monkeypatch.setenv(ADMIN_TOKEN_ENV, "*:*.unleash-admin-token")
    made = {worker: Toggle(100, worker=worker, prefix=prefix) for worker in ("scoreUsers", "stagingScoreUsers")}
    for toggle in made.values():
        toggle.switch("on")
    yield prefix, made
    for toggle in made.values():
        toggle.archive()


@pytest.fixture
def site(toggles, tmp_path):
    prefix, _ = toggles
    site = Operated(tmp_path / "fans.db", DevelopmentIssuer.started(tmp_path))
    with served(site, flags=f"unleash+http://{UNLEASH}/api?prefix={prefix}&refresh=1") as running:
        yield running


def test_a_worker_is_switched_off_and_on_with_a_confirmation(site, toggles, tab):
    page = tab().open(f"{site.address}/console#flags", site.token)
    row = page.locator("#section-flags tbody tr").filter(has=page.get_by_text("scoreUsers", exact=True))
    long = PATIENCE * 1_000
    expect(row).to_contain_text("\u25cf on", timeout=long)
    expect(row).to_contain_text(toggles[1]["scoreUsers"].name)
    unknown = page.locator("#section-flags tbody tr", has_text="handleEvent")
    expect(unknown).to_contain_text("on by default")
    assert unknown.get_by_role("button").count() == 0
    off = page.get_by_role("button", name="Switch scoreUsers off")
    off.click()
    dialog = page.get_by_role("dialog", name="Switch scoreUsers off?")
    expect(dialog).to_contain_text("waits where it is")
    page.keyboard.press("Escape")
    assert site.audited("flags.switch") == []
    off.click()
    dialog.get_by_role("button", name="Switch scoreUsers off").click()
    expect(page.locator("#section-flags .told")).to_contain_text("scoreUsers is switched off.", timeout=long)
    expect(row).to_contain_text("\u25a0 off", timeout=long)
    expect(page.get_by_role("button", name="Switch scoreUsers on")).to_be_focused()
    expect(page.locator("#flag-count")).to_have_text("1 off")
    assert [line.outcome for line in site.audited("flags.switch")] == ["done", "begun"]
    page.get_by_role("link", name="Now").click()
    expect(page.locator(".headline")).to_contain_text("scoreUsers is switched off by its flag", timeout=long)
    page.get_by_role("link", name="scoreUsers is switched off by its flag").click()
    page.get_by_role("button", name="Switch scoreUsers on").click()
    page.get_by_role("dialog").get_by_role("button", name="Switch scoreUsers on").click()
    expect(row).to_contain_text("\u25cf on", timeout=long)
    assert [line.details["to"] for line in site.audited("flags.switch")] == ["on", "on", "off", "off"]
