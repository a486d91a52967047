"""What is served, and with which headers; no browser needed."""

import shutil
from pathlib import Path

import httpx
import pytest

from fan_identity.serving.pages import routes
from fan_identity.serving.pages.graphiql import ASSETS, CDN, VENDOR, graphiql_page, graphiql_policy

PAGES = Path(routes.__file__).parent


def paths(*, development):
    return {route.path for route in routes.page_routes(development)}


def test_every_file_of_the_folder_is_served_or_named():
    files = (path for path in PAGES.rglob("*") if path.suffix in (".css", ".js", ".svg", ".html"))
    on_disk = {str(path.relative_to(PAGES)) for path in files if VENDOR.folder not in path.parts}
    console = {route.path for route in routes.console_routes()}
    served = {path.removeprefix("/pages/") for path in paths(development=True) | console}
    shells = {"fan.html", "graphiql.html", "console.html"}
    assert on_disk - shells == {name for name in served if not name.startswith(("/", "vendor/"))}


def test_graphiql_is_there_in_development_alone(serve):
    production, development = serve(), serve(development=True)
    for path in ("/graphiql", "/pages/graphiql.js", "/pages/graphiql.css"):
        assert httpx.get(production.address + path).status_code == 404
        assert httpx.get(development.address + path).status_code == 200


@pytest.mark.parametrize("path", ["/fans", "/console"])
def test_a_page_is_a_shell_that_needs_no_token(site, path):
    answer = httpx.get(site.address + path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == routes.FAN_POLICY
    assert "unsafe" not in routes.FAN_POLICY
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "onclick" not in answer.text
    assert "<script>" not in answer.text


@pytest.mark.parametrize(
    "path", ["/pages/../routes.py", "/pages/%2e%2e/routes.py", "/pages/routes.py", "/pages/", "/pages/fan.html"]
)
def test_no_other_file_is_served(site, path):
    with httpx.Client() as client:
        request = client.build_request("GET", site.address)
        request.url = request.url.copy_with(raw_path=path.encode())
        assert client.send(request).status_code == 404


def test_nothing_but_get(site):
    assert httpx.post(f"{site.address}/fans").status_code == 405


def test_graphiql_without_fetched_files_names_the_cdn_with_versions_and_hashes():
    page = graphiql_page("<!-- assets -->", vendored=False)
    policy = graphiql_policy(vendored=False)
    for asset in ASSETS:
        assert f'"{CDN}/{asset.package}@{asset.version}/{asset.path}" integrity="{asset.integrity}"' in page
        assert f" {asset.url}" in policy
    assert " https://cdn.jsdelivr.net " not in policy


def test_graphiql_with_fetched_files_names_nobody_else():
    assert "https:" not in graphiql_page((PAGES / "graphiql.html").read_text(), vendored=True)
    assert "https:" not in graphiql_policy(vendored=True)


def test_a_changed_file_is_not_taken_for_the_fetched_one(tmp_path):
    if not VENDOR.complete(PAGES):
        pytest.skip("GraphiQL's files are not here: `make graphiql` fetches them")
    shutil.copytree(PAGES / VENDOR.folder, tmp_path / VENDOR.folder)
    assert VENDOR.complete(tmp_path)
    with (tmp_path / VENDOR.files[0]).open("ab") as file:
        file.write(b" ")
    assert not VENDOR.complete(tmp_path)
