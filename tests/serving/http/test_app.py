"""The HTTP application, asked as a server would ask it: who may, what ids are, what is refused and how."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import httpx
import pytest

from fan_identity.domain.keys import arm_cache_key, user_pk
from fan_identity.io.errors import UsageError
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteArmCache, SqliteTable
from fan_identity.serving.api_keys import create_key
from fan_identity.serving.http.app import Application
from fan_identity.serving.http.development import DevelopmentIssuer, is_loopback
from fan_identity.serving.http.parts import open_parts
from fan_identity.serving.settings import load_serving_settings

IDS = [
    *("a#b", "a:b", "a\r\nb", "a\0b", "caf\u00e9", "cafe\u0301", "a/b", "a%2Fb", "a%252Fb", "..", "a b", "a+b"),
    *("\U0001f600", "a?detail=true", "x" * 2_000),
]


def path_of(user):
    """Percent-encoded whole: a client would take ".." for a step up."""
    return "".join(f"%{byte:02X}" for byte in user.encode())


class Api:
    """The application over a store, and tokens for it."""

    def __init__(self, folder):
        self.folder = folder
        self.store = SqliteStore(folder / "fans.db")
        self.issuer = DevelopmentIssuer.started(folder)
        self.service = {"Authorization": f"Bearer {self.issuer.token_of_service()}"}
        self.settings = {"store": f"sqlite:///{folder}/fans.db", "arm_deadline": "30s", "upstream_deadline": "30s"}

    def fan(self, user):
        return {"Authorization": f"Bearer {self.issuer.token_of_fan(user, 'sub')}"}

    def score(self, user, risk):
        value = {"global_user_id": user, "arm_risk": risk, "timestamp": 1_718_355_600_000, "modelVersion": "m1"}
        SqliteArmCache(self.store).put_if_newer([(arm_cache_key(user), "1", value)])

    @asynccontextmanager
    async def client(self, **settings):
        loaded = load_serving_settings(**{**self.settings, **self.issuer.settings, **settings})
        app = Application(lambda: open_parts(loaded))
        await app.start()
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
                yield client
        finally:
            await app.stop()

    def ask(self, *requests, **settings):
        """Answers of requests (method, path, options), one after the other."""

        async def asked():
            async with self.client(**settings) as client:
                return [await client.request(method, path, **options) for method, path, options in requests]

        return asyncio.run(asked())

    def get(self, path, headers, **settings):
        return self.ask(("GET", path, {"headers": headers}), **settings)[0]


@pytest.fixture
def api(tmp_path):
    return Api(tmp_path)


def code(answer):
    (error,) = answer.json()["errors"]
    assert set(error) == {"message", "errorType", "errorInfo"}
    assert error["errorType"] == str(answer.status_code)
    return error["errorInfo"]["code"]


def test_ids_are_data_and_reach_their_own_entry_alone(api):
    for number, user in enumerate(IDS):
        api.score(user, number % 5 + 1)
    answers = api.ask(
        *(("GET", "/arm/" + path_of(user), {"headers": api.fan(user)}) for user in IDS if len(user) < 1_025),
        ("GET", "/arm/" + path_of(IDS[-1]), {"headers": api.service}),
    )
    assert [answer.json() for answer in answers] == [{"armScore": number % 5 + 1} for number in range(len(IDS))]
    (many,) = api.ask(("POST", "/arm", {"headers": api.service, "json": {"globalUserIds": IDS}}))
    assert [one["armScore"] for one in many.json()["armScores"]] == [number % 5 + 1 for number in range(len(IDS))]


def test_a_path_is_decoded_once(api):
    api.score("a%2Fb", 4)
    for path, expected in (("/arm/a%252Fb", 4), ("/arm/a%2Fb", None), ("/arm/a%25252Fb", None)):
        assert api.get(path, api.service).json() == {"armScore": expected}, path
    assert api.get("/arm/a/b", api.service).status_code == 404
    for path in ("/arm/%ff", "/arm/%ed%a0%80"):
        assert (api.get(path, api.service).status_code, code(api.get(path, api.service))) == (400, "BAD_INPUT")


def test_who_may_ask(api):
    api.score("a", 2)
    wrong = api.fan("a")["Authorization"][:-4] + "AAAA"
    table = [
        ({}, 401, "NOT_LOGGED_IN"),
        (api.fan("b"), 403, "FORBIDDEN"),
        ({"Authorization": wrong}, 401, "UNAUTHORIZED"),
        ({"Authorization": "Basic YTpi"}, 401, "UNAUTHORIZED"),
        ({"Authorization": "Bearer"}, 401, "UNAUTHORIZED"),
        ({"X-Api-Key": "fik_x"}, 401, "UNAUTHORIZED"),
        ({**api.fan("a"), "X-Api-Key": "fik_x"}, 400, "BAD_REQUEST"),
    ]
    for headers, status, expected in table:
        answer = api.get("/arm/a", headers)
        assert (answer.status_code, code(answer)) == (status, expected), headers
        assert (answer.headers.get("www-authenticate") == "Bearer") == (status == 401)
    twice = [("Authorization", wrong), ("Authorization", api.fan("a")["Authorization"])]
    assert api.get("/arm/a", twice).status_code == 400
    answers = api.ask(*[("GET", "/arm/a", {"headers": headers}) for headers in (api.fan("a"), api.fan("b")) * 3])
    assert [answer.status_code for answer in answers] == [200, 403] * 3, "the second time tokens are known"
    refused = api.ask(("POST", "/arm", {"headers": api.fan("a"), "json": {"globalUserIds": ["a", "b"]}}))[0]
    assert (refused.status_code, "armScores" in refused.text) == (403, False)
    own = api.ask(("POST", "/arm", {"headers": api.fan("a"), "json": {"globalUserIds": ["a"]}}))[0]
    assert own.json() == {"armScores": [{"armScore": 2}]}


def test_an_api_key_reads_and_is_limited_by_cost(api):
    api.score("a", 2)
    path = api.folder / "keys"
    reader = {"X-Api-Key": create_key(path, "reader", ["fanscore:read"], 5)}
    other = {"X-Api-Key": create_key(path, "other", [], 5)}
    answers = api.ask(
        ("GET", "/arm/a", {"headers": reader}),
        ("GET", "/arm/a", {"headers": other}),
        ("POST", "/arm", {"headers": reader, "json": {"globalUserIds": ["a", "b", "c", "d"]}}),
        ("GET", "/arm/a", {"headers": reader}),
        api_keys=str(path),
    )
    assert [answer.status_code for answer in answers] == [200, 403, 200, 429]
    assert code(answers[3]) == "RATE_LIMITED"
    assert int(answers[3].headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("method", "path", "status", "expected"),
    [
        *(("POST", "/arm/a", 405, "METHOD_NOT_ALLOWED"), ("GET", "/arm", 405, "METHOD_NOT_ALLOWED")),
        *(("OPTIONS", "/arm/a", 405, "METHOD_NOT_ALLOWED"), ("DELETE", "/health", 405, "METHOD_NOT_ALLOWED")),
        *(("GET", "/nope", 404, "NOT_FOUND"), ("GET", "/armada", 404, "NOT_FOUND"), ("GET", "/arm/", 400, "BAD_INPUT")),
        ("GET", "/arm/a?detail=maybe", 400, "BAD_INPUT"),
        ("GET", "/arm/a?x=1", 400, "BAD_INPUT"),
        ("GET", "/arm/%20", 400, "BAD_INPUT"),
    ],
)
def test_what_is_refused_is_refused_in_one_shape(api, method, path, status, expected):
    (answer,) = api.ask((method, path, {"headers": api.service}))
    assert (answer.status_code, code(answer)) == (status, expected)
    assert ("allow" in answer.headers) == (status == 405)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b"[" * 60_000, 400),
        (b'{"globalUserIds":["\\ud800"]}', 400),
        (b'{"globalUserIds":[1]}', 400),
        (b'{"globalUserIds":["a"],"more":1}', 400),
        (b'{"globalUserIds":[" "]}', 400),
        (json.dumps({"globalUserIds": ["a"] * 101}).encode(), 400),
        (json.dumps({"globalUserIds": ["a"] * 100}).encode(), 200),
        (b'{"globalUserIds":[]}', 200),
        (b" " * 65_537, 413),
    ],
)
def test_bodies(api, body, status):
    async def chunks():
        for start in range(0, len(body), 1_000):
            yield body[start : start + 1_000]

    for content in (body, chunks()):
        (answer,) = api.ask(("POST", "/arm", {"headers": api.service, "content": content}))
        assert answer.status_code == status


def test_every_answer_has_its_headers_and_the_requests_id(api):
    api.score("a", 2)
    paths = ["/arm/a", "/arm/a/b", "/health", "/ready", "/nope", "/docs", "/openapi.json"]
    for answer in api.ask(*(("GET", path, {"headers": {**api.service, "x-correlation-id": "r-7"}}) for path in paths)):
        assert answer.headers["x-correlation-id"] == "r-7"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; frame-ancestors 'none'")
    for bad in ("a b", "<script>", "x" * 129, ""):
        ids = {
            one.headers["x-correlation-id"]
            for one in api.ask(*[("GET", "/arm/a", {"headers": {**api.service, "x-correlation-id": bad}})] * 2)
        }
        assert len(ids) == 2 and bad not in ids


def test_readiness_names_what_is_missing_and_no_address(api, caplog):
    ready = api.get("/ready", {}).json()
    assert ready["status"] == "ready"
    assert {"cache", "jwks", "fan_identity"} <= set(ready["checked"]) and ready["degraded"] == []
    without = api.get("/ready", {}, cache="redis://user:s3cret@127.0.0.1:9/0")
    assert (without.status_code, without.json()["degraded"]) == (200, ["cache"])  # the table stands in for it
    without = api.get("/ready", {}, cache="redis://user:s3cret@127.0.0.1:9/0", arm_fallback=False)
    assert (without.status_code, without.json()["missing"]) == (503, ["cache"])
    away = {"cache": "redis://user:s3cret@127.0.0.1:9/0", "token_jwks": "http://127.0.0.1:9/jwks"}
    answer = api.get("/ready", {}, **away)
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "missing": ["cache", "jwks"]})
    assert "s3cret" not in caplog.text
    assert api.get("/health", {}, **away).json() == {"status": "ok"}
    assert code(api.get("/arm/a", api.service, **away)) == "UNAVAILABLE"  # nobody can say whose token it is


def test_an_outage_is_never_an_unknown_fan(api):
    SqliteTable(api.store, "fanIdentityTable").put({"PK": user_pk("a"), "SK": "LATEST", "armRisk": 3})
    away = {"cache": "redis://127.0.0.1:9/0"}
    assert api.get("/arm/a", api.service, **away).json() == {"armScore": 3, "stale": True}
    assert api.get("/arm/b", api.service, **away).json() == {"armScore": None}
    answer = api.get("/arm/b", api.service, **away, arm_fallback=False)
    assert (answer.status_code, code(answer)) == (503, "UNAVAILABLE")
    api.score("broken", 9)
    many = api.ask(("POST", "/arm", {"headers": api.service, "json": {"globalUserIds": ["b", "broken"]}}))[0].json()
    assert many["armScores"][0] == {"armScore": None}
    assert many["armScores"][1]["errors"][0]["errorInfo"]["code"] == "UNAVAILABLE"


def test_the_log_has_neither_ids_nor_queries_nor_tokens(api, caplog):
    caplog.set_level(logging.DEBUG, "fan_identity")
    api.score("canary@example.com", 2)
    api.ask(
        ("GET", "/arm/canary%40example.com?detail=true", {"headers": api.service}),
        ("GET", "/arm/canary%40example.com?canary", {"headers": api.service}),
        ("GET", "/canary", {}),
    )
    logged = "".join(str(vars(record)) for record in caplog.records)
    assert "'route': '/arm'" in logged and "'status': 400" in logged and "'route': 'other'" in logged
    assert "canary" not in logged
    assert api.service["Authorization"].split(".")[1] not in logged


def test_a_defect_is_an_error_without_a_stack(api, caplog, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("canary")

    monkeypatch.setattr("fan_identity.serving.http.arm_endpoint._decoded", broken)
    answer = api.get("/arm/a", api.service)
    assert (answer.status_code, code(answer)) == (500, "INTERNAL")
    assert "canary" not in answer.text + caplog.text
    assert any(getattr(record, "error", None) == "RuntimeError" for record in caplog.records)


def test_the_documents_describe_what_is_served(api):
    document = api.get("/openapi.json", {}).json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for method in operations:
            (answer,) = api.ask((method.upper(), path.replace("{globalUserId}", "a"), {"headers": api.service}))
            assert str(answer.status_code) in operations[method]["responses"], (method, path)
    page = api.get("/docs", {})
    assert "<script" not in page.text and "http://" not in page.text.replace("http://HOST", "")
    assert "/arm/{globalUserId}" in page.text


def test_wrong_settings_end_the_start(api):
    for settings in ({"cache": "ftp://x"}, {"token_audience": ""}, {"api_keys": "/nowhere/keys"}):
        with pytest.raises(UsageError):
            api.get("/health", {}, **settings)


LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.mark.parametrize("host", [*LOOPBACK, "0.0.0.0", "::", "10.0.0.1", "api.example.com"])
def test_what_only_this_machine_reaches(host):
    assert is_loopback(host) == (host in LOOPBACK)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--development", "--host", "0.0.0.0"), "--development: it serves this machine only"),
        ((), "token_issuer"),
        (("--fan", "a"), "--fan"),
        (("--development", "--cache", "ftp://x"), "--cache"),
        (("--development", "--host", "no.such.host.invalid"), "--host"),
        (("--token-issuer", "https://i"), "token_audience"),
    ],
)
def test_the_command_refuses_in_one_line(cli, tmp_path, arguments, says):
    done = cli("serve", "--port", "0", "--store", f"sqlite:///{tmp_path}/f.db", *arguments)
    assert done.code == 2, done
    (line,) = done.err_lines
    assert says in line
