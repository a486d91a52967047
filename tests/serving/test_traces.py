"""Spans of what is asked over HTTP, by GraphQL and through Lambdas; and whose choice it is that they are recorded."""

import asyncio

import pytest

from fan_identity.domain.keys import LATEST_SK, arm_cache_key, user_pk
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteArmCache
from fan_identity.io.telemetry.tracing import new_span
from fan_identity.serving import arm_handler
from fan_identity.serving.http.request_traces import is_recorded, traced
from fan_identity.serving.resolvers import ACCOUNT_FANSCORE

from ..io.telemetry.recording import recording

CALLERS = f"00-{'c' * 32}-{'d' * 16}-01"
SCORED_IN = f"00-{'a' * 32}-{'b' * 16}-01"
QUERY = """
query FanScore { api { accountFanscore(globalUserId: "user123", eventId: "evt456", memberId: "m") { score } } }
"""


def request(path="/arm/canary-user", method="GET", traceparents=(CALLERS,)):
    headers = [(b"traceparent", text.encode()) for text in traceparents]
    return {"type": "http", "method": method, "path": path, "headers": headers, "scheme": "https"}


def serve(scope, *, trusts=False, status=200):
    async def endpoint(scope, receive, send):
        await send({"type": "http.response.start", "status": status})

    async def send(message):
        sent.append(message)

    sent = []
    answer = traced(endpoint, scope, None, send, trusts=trusts) if is_recorded(scope, trusts=trusts) else None
    asyncio.run(answer or endpoint(scope, None, send))
    return sent


def test_a_request_begins_a_trace_of_its_own_linked_to_the_callers():
    with recording() as recorded:
        assert serve(request()) == [{"type": "http.response.start", "status": 200}]
    (span,) = recorded.spans
    assert span.parent is None
    assert [f"{link.context.trace_id:x}" for link in span.links] == ["c" * 32]
    assert (span.name, span.kind.name) == ("GET /arm/{globalUserId}", "SERVER")
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.route": "/arm/{globalUserId}",
        "url.scheme": "https",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
    }


def test_a_caller_cannot_have_a_request_recorded():
    with recording(0.0) as recorded:
        serve(request())
    assert not recorded.spans


def test_a_caller_that_is_trusted_decides_and_its_trace_goes_on():
    with recording(0.0) as recorded:
        serve(request(), trusts=True)
        serve(request(traceparents=[CALLERS[:-1] + "0"]), trusts=True)
    (span,) = recorded.spans
    assert f"{span.context.trace_id:x}" == "c" * 32
    assert f"{span.parent.span_id:x}" == "d" * 16
    assert not span.links


@pytest.mark.parametrize("trusts", [True, False])
@pytest.mark.parametrize("sent", [[], [""], ["x" * 10_000], [CALLERS, CALLERS], [CALLERS.upper()], [CALLERS + "-x"]])
def test_rubbish_is_no_trace(sent, trusts):
    with recording() as recorded:
        serve(request(traceparents=sent), trusts=trusts)
    (span,) = recorded.spans
    assert (span.parent, tuple(span.links)) == (None, ())


@pytest.mark.parametrize(
    ("path", "method", "name"),
    [
        ("/graphql", "POST", "POST /graphql"),
        ("/console/api/flow", "GET", "GET /console/{page}"),
        ("/canary-user", "GET", "GET"),
        ("/arm", "BREW", "_OTHER /arm"),
    ],
)
def test_names_are_of_a_short_list(path, method, name):
    with recording() as recorded:
        serve(request(path, method))
    assert recorded.spans[0].name == name
    assert "canary" not in recorded.spans[0].to_json()


def test_an_answer_of_ours_that_failed_is_told():
    with recording() as recorded:
        serve(request(), status=503)
        serve(request(), status=404)
    assert [span.attributes.get("error.type") for span in recorded.spans] == ["503", None]


def test_each_function_is_a_span_and_those_side_by_side_overlap(filled):
    filled.sources.fan_identity.items[user_pk("user123"), LATEST_SK]["traceparent"] = SCORED_IN
    arm, table, meeting = filled.sources.arm, filled.sources.fan_identity, asyncio.Barrier(2)

    def meets(source):
        answer = source.answer

        async def met():
            source.answer = answer
            await meeting.wait()  # each waits until the other was asked, too
            await answer()

        source.answer = met

    with recording() as recorded:
        assert "errors" not in filled.query(QUERY)
        assert recorded.spans == (), "outside of a recorded request nothing is"
        meets(arm)
        meets(table)
        with new_span("POST /graphql", "server"):
            assert "errors" not in filled.query(QUERY)
    functions = [recorded.one(function.name) for function in ACCOUNT_FANSCORE.functions]
    assert {recorded.parent(span) for span in functions} == {"GraphQL query"}
    arm_span, table_span = recorded.one("getArmScore"), recorded.one("getAccountFanscoreGlobalUserId")
    assert arm_span.start_time < table_span.end_time
    assert table_span.start_time < arm_span.end_time
    assert [f"{link.context.trace_id:x}" for link in table_span.links] == ["a" * 32]
    assert recorded.one("getAccountFanscoreMemberId").attributes["fan_identity.outcome"] == "skipped"
    operation = recorded.one("GraphQL query")
    assert dict(operation.attributes) == {"graphql.operation.type": "query", "graphql.operation.name": "FanScore"}
    for span in recorded.spans:
        assert "user123" not in span.to_json()


def test_an_operations_name_that_may_be_an_id_is_left_out(filled):
    with recording() as recorded, new_span("POST /graphql", "server"):
        filled.query("query fan_00042 { __typename }")
        filled.query("query fan_00042 { nothing }")
    assert dict(recorded.one("GraphQL query").attributes) == {"graphql.operation.type": "query"}


def test_a_function_whose_source_is_away_failed(filled):
    filled.sources.arm.down = True
    with recording() as recorded, new_span("POST /graphql", "server"):
        filled.query(QUERY)
    assert recorded.one("getArmScore").attributes["error.type"] == "unavailable"


def test_the_lookup_on_lambda_is_linked_to_the_score_it_reads(tmp_path, monkeypatch):
    value = {"global_user_id": "canary-user", "arm_risk": 2, "timestamp": 1, "traceparent": SCORED_IN}
    SqliteArmCache(SqliteStore(tmp_path / "s.db")).put_if_newer([(arm_cache_key("canary-user"), "1", value)])
    monkeypatch.setenv("FAN_IDENTITY_STORE", f"sqlite:///{tmp_path}/s.db")
    monkeypatch.setenv("FAN_IDENTITY_ARM_DEADLINE", "30s")
    arm_handler._opened.cache_clear()
    event = {"globalUserId": "canary-user", "request": {"headers": {"traceparent": CALLERS}}}
    with recording() as recorded:
        assert arm_handler.handler(event) == {"data": {"armScore": 2}}
    arm_handler._opened.cache_clear()
    (span,) = [span for span in recorded.spans if span.name == "getArmScore"]
    assert span.parent is None
    assert [f"{link.context.trace_id:x}" for link in span.links] == ["c" * 32, "a" * 32]
    assert "canary" not in span.to_json()
