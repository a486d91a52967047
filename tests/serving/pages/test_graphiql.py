"""GraphiQL in Chromium, from files of this server alone."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from fan_identity.serving.pages import routes
from fan_identity.serving.pages.graphiql import CDN, VENDOR

PAGES = Path(routes.__file__).parent


@pytest.fixture
def fetched():
    if not VENDOR.complete(PAGES):
        pytest.skip("GraphiQL's files are not here: `make graphiql` fetches them")


def answer_of(page):
    """The answer as the result pane holds it."""
    return json.loads(page.evaluate("document.querySelector('.result-window .CodeMirror').CodeMirror.getValue()"))


def run(page):
    with page.expect_response("**/graphql") as response:
        page.get_by_role("button", name="Execute query").click()
    response.value.finished()
    expect(page.locator(".result-window")).to_contain_text("}")


@pytest.mark.usefixtures("fetched")
def test_it_runs_the_first_query(serve, tab):
    site = serve(development=True)
    items = site.fill("fan-00042")
    watched = tab()
    page = watched.open(f"{site.address}/graphiql")
    page.get_by_label("Bearer token").fill(site.token)
    run(page)
    expect(page.locator(".result-window")).to_contain_text("accountScore")
    answer = answer_of(page)
    assert "errors" not in answer
    assert [one["accountScore"] for one in answer["data"]["fan"]["history"]] == [
        item["accountScore"] for item in items[:-4:-1]
    ]
    assert "getFanHistory" in [one["function"] for one in answer["extensions"]["asked"]]
    assert all(url.startswith((site.address, "data:")) for url in watched.requested)
    assert page.evaluate("localStorage.length") == 0
    assert all(site.token not in url for url in watched.requested)


@pytest.mark.usefixtures("fetched")
def test_it_knows_the_schema_without_a_token_but_no_fan(serve, tab):
    site = serve(development=True)
    site.fill("fan-00042")
    page = tab().open(f"{site.address}/graphiql")
    page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(page.get_by_text("A GraphQL schema provides a root type")).to_be_visible()
    expect(page.locator(".graphiql-doc-explorer-content")).to_contain_text("Mutation")
    run(page)
    expect(page.locator(".result-window")).to_contain_text("NOT_LOGGED_IN")
    assert answer_of(page)["data"] is None


def test_without_its_files_and_without_the_cdn_it_says_what_to_do(serve, tab, monkeypatch):
    monkeypatch.setattr(type(VENDOR), "complete", lambda _, __: False)
    site = serve(development=True)
    watched = tab()
    watched.page.route(f"{CDN}/**", lambda route: route.abort())
    page = watched.open(f"{site.address}/graphiql")
    expect(page.locator("#missing")).to_contain_text("make graphiql")
    asked = [url for url in watched.requested if not url.startswith(site.address)]
    assert len(asked) == 4
    assert all(url.startswith(CDN) for url in asked)
    assert all("ERR_FAILED" in one or "integrity" in one for one in watched.take_complaints())
