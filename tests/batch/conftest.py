"""A browser for the reports."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright


@pytest.fixture(scope="module")
def chromium():
    """Chromium; skipped where there is none, failed where FAN_IDENTITY_REQUIRE_SERVICES asks for it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        required = os.environ.get("FAN_IDENTITY_REQUIRE_SERVICES", "").split(",")
        if "chromium" in required or "all" in required:
            pytest.fail("no chromium on the PATH")
        pytest.skip("no chromium on the PATH: install the system's package, such as apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()
