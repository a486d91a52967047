"""The HTTP model against the sandbox, with every fault it can have; each user's outcome, batch-mates unharmed."""

import asyncio
import json
import math
import pickle
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.arai import arai_of
from fan_identity.domain.messages import ScoringMessage
from fan_identity.domain.records import Failure
from fan_identity.domain.scorecard import ModelScore
from fan_identity.io.caller import CallLimits
from fan_identity.io.errors import UsageError
from fan_identity.io.model import EmbeddedModel
from fan_identity.io.ports import ScoringRequest
from fan_identity.io.scoring_model import MAX_BATCH_BYTES, REST, HttpScoringModel, parse_score, request_body
from fan_identity.serving.sandbox.people import features_of
from fan_identity.serving.sandbox.server import SandboxThread

PATIENT = CallLimits(attempt_seconds=60, deadline_seconds=120, batch_seconds=240, backoff_seconds=0.01)
HASTY = replace(PATIENT, attempt_seconds=0.5, deadline_seconds=1.5, retry_reserve=1000, most_retries=1000)


class Sandbox:
    """A running sandbox, and its faults."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def fault(self, **fault: Any) -> None:
        self.ask("PUT", "/faults", {"model": fault})

    @property
    def calls(self) -> int:
        return self.ask("GET", "/calls")["model"]["calls"]

    def model(self, options: str = "", limits: CallLimits = PATIENT) -> HttpScoringModel:
        model = HttpScoringModel.of(f"{self.address}/model/score{options}", "model")
        return replace(model, api=replace(model.api, limits=limits))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """One for each test, so that breakers and connections are its own."""
    with SandboxThread() as thread:
        yield Sandbox(thread.address)


def request_for(user: str, activity: bytes = b'{"activityId":"a","more":[1,null]}') -> ScoringRequest:
    message = ScoringMessage(user, f"a-{user}", "login", 1_718_362_800_123, "run-1", "w", msgspec.Raw(activity))
    return ScoringRequest(message, arai_of({"features": features_of(user, 0)}, message.occurred_at))


USERS = [f"fan-{number}" for number in range(10)]
REQUESTS = [request_for(user) for user in USERS]
EXPECTED = EmbeddedModel.packaged().score(REQUESTS)
INVALID_BODIES = ["nan", "zero", "six", "text", "half", "html"]
MODES = pytest.mark.parametrize("options", ["", "?batch=64", "?batch=3"])


def shape(score: ModelScore | Failure) -> Any:
    """What is the same whichever way a score came: reasons name codes, not our features."""
    if isinstance(score, Failure):
        return score.reason, score.retryable
    reasons = [(reason.code, reason.value, reason.points) for reason in score.reasons]
    return score.account_score, score.arm_risk, score.bon_score, score.base_score, reasons, score.model_version


@MODES
def test_scores_are_those_of_the_model_behind_it(sandbox: Sandbox, options: str):
    assert [shape(score) for score in sandbox.model(options).score(REQUESTS)] == [shape(score) for score in EXPECTED]
    assert sandbox.calls == {"": 10, "?batch=64": 1, "?batch=3": 4}[options]


@pytest.mark.parametrize("body", INVALID_BODIES)
@MODES
def test_an_answer_that_is_no_score_fails_its_user_only(sandbox: Sandbox, options: str, body: str):
    sandbox.fault(body=body, users=["fan-4"])
    outcomes = sandbox.model(options).score(REQUESTS)
    assert shape(outcomes[4]) == ("model_invalid", False)
    assert [shape(score) for score in outcomes[:4] + outcomes[5:]] == [shape(s) for s in EXPECTED[:4] + EXPECTED[5:]]


@pytest.mark.parametrize("options", ["?batch=64", "?batch=3"])
def test_a_list_of_the_wrong_length_is_asked_for_again_one_by_one(sandbox: Sandbox, options: str):
    sandbox.fault(body="short", count=1)
    outcomes = sandbox.model(options).score(REQUESTS)
    assert [shape(score) for score in outcomes] == [shape(score) for score in EXPECTED]


def test_a_batch_server_that_is_always_wrong_fails_everyone_and_ends(sandbox: Sandbox):
    sandbox.fault(body="half")
    outcomes = sandbox.model("?batch=64").score(REQUESTS)
    assert [shape(outcome) for outcome in outcomes] == [("model_invalid", False)] * 10
    assert sandbox.calls == 1 + 10


@MODES
def test_a_slow_model_is_waited_for(sandbox: Sandbox, options: str):
    sandbox.fault(delayMs=200)
    assert [shape(score) for score in sandbox.model(options).score(REQUESTS)] == [shape(score) for score in EXPECTED]


@pytest.mark.parametrize("options", ["", "?batch=64"])
def test_a_model_that_hangs_is_unavailable(sandbox: Sandbox, options: str):
    sandbox.fault(hang=True)
    outcomes = sandbox.model(options, HASTY).score(REQUESTS)
    assert [shape(outcome) for outcome in outcomes] == [("model_unavailable", True)] * 10


@pytest.mark.parametrize("status", [500, 400, 413])
@MODES
def test_a_user_who_breaks_the_model_does_not_take_others_along(sandbox: Sandbox, options: str, status: int):
    sandbox.fault(status=status, users=["fan-7"])
    outcomes = sandbox.model(options, replace(PATIENT, attempts=2)).score(REQUESTS)
    assert shape(outcomes[7]) == (("model_unavailable", True) if status == 500 else ("model_refused", False))
    assert [shape(score) for score in outcomes[:7] + outcomes[8:]] == [shape(s) for s in EXPECTED[:7] + EXPECTED[8:]]


def test_a_user_who_hangs_the_model_does_not_take_others_along(sandbox: Sandbox):
    sandbox.fault(hang=True, users=["fan-7"])
    # Long enough for the others' answers on any machine.
    outcomes = sandbox.model("?batch=64", replace(PATIENT, attempts=1, attempt_seconds=5)).score(REQUESTS)
    assert shape(outcomes[7]) == ("model_unavailable", True)
    assert [shape(score) for score in outcomes[:7] + outcomes[8:]] == [shape(s) for s in EXPECTED[:7] + EXPECTED[8:]]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
@MODES
def test_a_passing_failure_is_tried_again(sandbox: Sandbox, options: str, status: int):
    sandbox.fault(status=status, count=3)
    outcomes = sandbox.model(options).score(REQUESTS)
    assert [shape(score) for score in outcomes] == [shape(score) for score in EXPECTED]


def test_retry_after_beyond_the_deadline_is_not_waited_for(sandbox: Sandbox):
    sandbox.fault(status=429, retryAfter=3_600)
    [outcome] = sandbox.model().score(REQUESTS[:1])
    assert (outcome.reason, outcome.retryable, outcome.attempts) == ("model_unavailable", True, 1)
    assert "429" in outcome.error


def test_retry_after_within_the_deadline_is_honoured(sandbox: Sandbox):
    sandbox.fault(status=429, retryAfter=1, count=1)
    began = time.monotonic()
    [outcome] = sandbox.model().score(REQUESTS[:1])
    assert isinstance(outcome, ModelScore)
    assert time.monotonic() - began >= 1, "no sooner than asked"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refused_credentials_or_paths_may_work_later_and_are_not_tried_again(sandbox: Sandbox, status: int):
    sandbox.fault(status=status)
    outcomes = sandbox.model().score(REQUESTS)
    assert [shape(outcome) for outcome in outcomes] == [("model_refused", True)] * 10
    assert sandbox.calls == 10


@MODES
def test_thirty_percent_of_failures_cost_nobody_a_score(sandbox: Sandbox, options: str):
    sandbox.fault(status=503, rate=0.3)
    limits = replace(PATIENT, attempts=40, retry_reserve=1_000, most_retries=1_000)
    users = [f"many-{number}" for number in range(200)]
    requests = [request_for(user) for user in users]
    expected = EmbeddedModel.packaged().score(requests)
    assert [shape(score) for score in sandbox.model(options, limits).score(requests)] == [shape(s) for s in expected]


def test_thirty_percent_of_failures_with_default_limits_leave_scores_or_retryable_failures(sandbox: Sandbox):
    """The retry budget and the attempts may run out for some; nobody is failed for good."""
    sandbox.fault(status=503, rate=0.3)
    users = [f"many-{number}" for number in range(300)]
    requests = [request_for(user) for user in users]
    limits = replace(CallLimits(), attempt_seconds=60, deadline_seconds=120, batch_seconds=240, backoff_seconds=0.01)
    outcomes = sandbox.model("", limits).score(requests)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert all(shape(failure) == ("model_unavailable", True) for failure in failures)
    assert len(failures) < 45, "without retries about 90"
    assert sandbox.calls <= 300 * 1.5 + limits.most_retries


def test_the_breaker_opens_on_a_dead_model_and_closes_when_it_is_back(sandbox: Sandbox):
    sandbox.fault(status=503)
    limits = replace(PATIENT, in_flight=4, first_pause_seconds=0.05, longest_pause_seconds=0.05)
    model = sandbox.model("", limits)
    requests = [request_for(f"many-{number}") for number in range(500)]
    outcomes = model.score(requests)
    assert {shape(outcome) for outcome in outcomes} == {("model_unavailable", True)}
    assert any(isinstance(outcome, Failure) and "breaker" in outcome.error for outcome in outcomes)
    assert sandbox.calls < 500, "most were never called for"
    sandbox.ask("DELETE", "/faults")
    deadline = time.monotonic() + 60
    while any(isinstance(outcome, Failure) for outcome in model.score(REQUESTS)):
        assert time.monotonic() < deadline
    assert [shape(score) for score in model.score(REQUESTS)] == [shape(score) for score in EXPECTED]


def test_a_model_nobody_listens_at_is_unavailable():
    with SandboxThread() as gone:
        address = gone.address
    model = HttpScoringModel.of(f"{address}/model/score", "model")
    outcomes = replace(model, api=replace(model.api, limits=HASTY)).score(REQUESTS)
    assert [shape(outcome) for outcome in outcomes] == [("model_unavailable", True)] * 10
    assert all("127.0.0.1" not in outcome.error for outcome in outcomes if isinstance(outcome, Failure))


def test_nothing_to_score_calls_nothing(sandbox: Sandbox):
    assert sandbox.model().score([]) == []
    assert sandbox.calls == 0


def test_large_activities_are_split_over_calls(sandbox: Sandbox):
    activity = b'{"activityId":"' + b"x" * (MAX_BATCH_BYTES // 3) + b'"}'
    requests = [request_for(user, activity) for user in USERS]
    assert [shape(s) for s in sandbox.model("?batch=64").score(requests)] == [shape(s) for s in EXPECTED]
    assert sandbox.calls == 5


def test_a_user_the_model_cannot_score_is_an_error_of_that_user(sandbox: Sandbox):
    """The sandbox answers {"error": …} in a batch and 422 alone where features are no numbers."""
    bad = replace_profile(request_for("fan-2"))
    requests = [*REQUESTS[:2], bad, *REQUESTS[3:]]
    outcomes = sandbox.model("?batch=64").score(requests)
    assert shape(outcomes[2]) == ("model_error", False)
    assert [shape(score) for score in outcomes[:2] + outcomes[3:]] == [shape(s) for s in EXPECTED[:2] + EXPECTED[3:]]
    assert shape(sandbox.model().score([bad])[0]) == ("model_refused", False)


def replace_profile(request: ScoringRequest) -> ScoringRequest:
    values: Any = ("secret", *request.arai.profile.values[1:])
    return ScoringRequest(request.message, type(request.arai)(type(request.arai.profile)(1, values)))


async def _serve(app: web.Application, work: Callable[[str], Any]) -> Any:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return await asyncio.to_thread(work, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


def answered_with(
    handler: Callable[[web.Request], Any], work: Callable[[HttpScoringModel], Any], path: str = ""
) -> Any:
    """What the model of a server of the test's own makes of its answers."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return asyncio.run(_serve(app, lambda address: work(HttpScoringModel.of(f"{address}/score{path}", "model"))))


GOOD = {"accountScore": 50, "armRisk": 3, "bonScore": 0.25, "modelVersion": "m-1"}


def test_calls_run_side_by_side_up_to_the_limit():
    """The server answers once five are there: one after the other none would ever be answered."""
    here = most = 0
    together = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        nonlocal here, most
        here += 1
        most = max(most, here)
        if here == 5:
            together.set()
        await together.wait()
        here -= 1
        return web.json_response(GOOD)

    def work(model: HttpScoringModel) -> Any:
        limits = replace(PATIENT, in_flight=model.api.limits.in_flight)
        return replace(model, api=replace(model.api, limits=limits)).score(REQUESTS)

    outcomes = answered_with(handler, work, "?in-flight=5")
    assert [outcome.arm_risk for outcome in outcomes] == [3] * 10
    assert most == 5


def test_headers_carry_the_token_and_the_ids(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAN_IDENTITY_MODEL_TOKEN", "s3cret")
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.headers, await request.json()))
        return web.json_response(GOOD)

    [score] = answered_with(handler, lambda model: model.score(REQUESTS[:1]))
    assert score.base_score == 50
    headers, body = seen[0]
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["x-correlation-id"] == "run-1"
    assert len(headers["x-request-id"]) == 32
    assert body["globalUserId"] == "fan-0"
    assert body["activity"] == {"activityId": "a", "more": [1, None]}
    assert (body["activityType"], body["occurredAt"]) == ("login", "2024-06-14T11:00:00.123Z")
    assert body["features"] == features_of("fan-0", 0)


def test_the_token_is_in_no_pickle_and_no_repr(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAN_IDENTITY_MODEL_TOKEN", "s3cret")
    model = HttpScoringModel.of("https://model/score?batch=8", "model")
    assert b"s3cret" not in pickle.dumps(model) and "s3cret" not in repr(model)
    assert pickle.loads(pickle.dumps(model)) == model


@pytest.mark.parametrize(
    ("status", "location", "outcome"),
    [
        (307, "/moved", None),
        (308, "/moved", None),
        (302, "/moved", ("model_refused", True)),
        (307, "http://127.0.0.2:9/moved", ("model_refused", True)),
        (307, "//evil.test/moved", ("model_refused", True)),
        (307, "", ("model_refused", True)),
    ],
)
def test_redirects_stay_within_the_origin(status: int, location: str, outcome: Any):
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/moved":
            return web.json_response(GOOD)
        return web.Response(status=status, headers={"Location": location})

    [score] = answered_with(handler, lambda model: model.score(REQUESTS[:1]))
    assert (shape(score) if isinstance(score, Failure) else None) == outcome


def test_redirects_in_a_circle_end():
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/again"})

    [score] = answered_with(handler, lambda model: model.score(REQUESTS[:1]))
    assert shape(score) == ("model_refused", True)


@pytest.mark.parametrize("streamed", [True, False])
def test_an_endless_answer_is_cut_off(streamed: bool):
    sent = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if not streamed:
            response.content_length = 1 << 40
        await response.prepare(request)
        try:
            while sent < 1 << 30:
                await response.write(b" " * 65_536)
                sent += 65_536
        except ConnectionError:
            pass
        return response

    [score] = answered_with(handler, lambda model: model.score(REQUESTS[:1]))
    assert shape(score) == ("model_invalid", False)
    assert sent < 1 << 28


def test_a_compressed_answer_is_not_unpacked():
    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=b"\x1f\x8b", content_type="application/json", headers={"Content-Encoding": "gzip"})

    [score] = answered_with(handler, lambda model: model.score(REQUESTS[:1]))
    assert shape(score) == ("model_invalid", False)


def test_a_connection_cut_in_an_answer_is_tried_again():
    tries = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        if tries > 1:
            return web.json_response(GOOD)
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"accountSc')
        assert request.transport is not None
        request.transport.close()
        return response

    [score] = answered_with(handler, lambda model: model.score(REQUESTS[:1]))
    assert score.arm_risk == 3
    assert tries == 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"accountScore":50,"armRisk":3,"bonScore":0.5}',
        *(
            json.dumps({**GOOD, **change}).encode()
            for change in (
                {"accountScore": -0.01},
                {"accountScore": 100.01},
                {"accountScore": math.inf},
                {"accountScore": "50"},
                {"accountScore": True},
                {"accountScore": None},
                {"armRisk": 0},
                {"armRisk": 6},
                {"armRisk": 3.0},
                {"armRisk": "3"},
                {"armRisk": True},
                {"bonScore": 1.01},
                {"bonScore": math.nan},
                {"modelVersion": ""},
                {"modelVersion": 7},
                {"modelVersion": "x" * 201},
                {"modelVersion": "a\u001b[31m"},
                {"reasons": {}},
                {"reasons": [{"code": "A"}]},
                {"reasons": [{"code": "A", "points": math.nan}]},
                {"reasons": [{"code": "A\n", "points": 1}]},
                {"reasons": [{"code": "A", "points": 1, "value": "x"}]},
                {"reasons": [{"code": "A", "points": 1}] * 1_001},
                {"baseScore": math.inf},
            )
        ),
        b'{"accountScore":1e999,"armRisk":3,"bonScore":0.25,"modelVersion":"m"}',
    ],
)
def test_what_is_no_score_is_refused_without_repeating_it(text: bytes):
    with pytest.raises(ValueError, match=r"no score|not JSON") as error:
        parse_score(text)
    assert "50" not in str(error.value).replace("$.", "")


def test_a_score_without_reasons_is_its_own_base():
    score = parse_score(json.dumps({**GOOD, "accountScore": 71.237, "unheardOf": 1}).encode())
    assert (score.account_score, score.base_score, score.reasons) == (71.24, 71.24, ())


def test_reasons_that_do_not_add_up_get_one_that_makes_up_the_difference():
    reasons = [{"code": "A", "points": 1.5, "value": 2}, {"code": "B", "points": -30}]
    score = parse_score(json.dumps({**GOOD, "baseScore": 60, "reasons": reasons}).encode())
    assert [(reason.code, reason.feature, reason.value, reason.points) for reason in score.reasons] == [
        ("B", "B", None, -30),
        (REST, REST, None, 18.5),
        ("A", "A", 2, 1.5),
    ]


@given(
    st.floats(0, 100),
    st.none() | st.floats(-100, 100),
    st.lists(st.tuples(st.sampled_from("ABC"), st.floats(-50, 50)), max_size=10),
)
def test_base_and_reasons_always_add_up_in_hundredths(account: float, base: float | None, points: list[Any]):
    wire = {**GOOD, "accountScore": account, "reasons": [{"code": code, "points": value} for code, value in points]}
    if base is not None:
        wire["baseScore"] = base
    score = parse_score(json.dumps(wire).encode())
    hundredths = round(score.base_score * 100) + sum(round(reason.points * 100) for reason in score.reasons)
    assert hundredths == round(score.account_score * 100)
    assert abs(score.account_score - account) <= 0.005 + 1e-9
    assert [abs(reason.points) for reason in score.reasons] == sorted(
        (abs(reason.points) for reason in score.reasons), reverse=True
    )


@given(st.text(min_size=1, max_size=50))
def test_a_request_is_json_whatever_the_user_is_called(user: str):
    try:
        user.encode()
    except UnicodeEncodeError:
        return
    assert json.loads(request_body(request_for(user)))["globalUserId"] == user


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("model/score", "not an address"),
        ("ftp://model/score", "ftp:// is not supported"),
        ("https://", "not an address of a service"),
        ("https:///score", "not an address of a service"),
        ("https://model:x/score", "not an address of a service"),
        ("https://mo del/score", "not an address of a service"),
        ("https://user:secret@model/score", "no credentials"),
        ("https://model/score?batsch=1", "no option 'batsch'"),
        ("https://model/score?batch=-1", "batch is a whole number"),
        ("https://model/score?timeout=0", "timeout is a whole number of at least 1"),
        ("https://model/score?token-env=hunter2", "token-env names"),
    ],
)
def test_wrong_addresses_are_said_before_anything_runs(address: str, problem: str):
    with pytest.raises(UsageError, match=problem) as error:
        HttpScoringModel.of(address, "model")
    assert str(error.value).startswith("--model: ")
    assert "secret" not in str(error.value) and "hunter2" not in str(error.value)


def test_a_token_no_header_can_carry_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAN_IDENTITY_MODEL_TOKEN", "a\nb")
    with pytest.raises(UsageError, match="FAN_IDENTITY_MODEL_TOKEN"):
        HttpScoringModel.of("https://model/score", "model")


def test_options_of_the_address():
    model = HttpScoringModel.of("https://model/score/?batch=64&timeout=20&in-flight=8&token-env=FAN_IDENTITY_X", "m")
    assert (model.batch, model.api.url, model.api.token_env) == (64, "https://model/score", "FAN_IDENTITY_X")
    limits = model.api.limits
    assert (limits.attempt_seconds, limits.deadline_seconds, limits.in_flight) == (20, 20, 8)
