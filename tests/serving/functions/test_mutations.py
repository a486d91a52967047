import asyncio

import pytest

from fan_identity.domain.demand import EVENT_SK, demand_sk, event_pk, fan_pk
from fan_identity.domain.keys import user_pk
from fan_identity.serving.context import Request
from fan_identity.serving.resolvers import RESOLVERS

from ..fakes import KEY_WITHOUT_SCOPE, SERVICE, fan

SAVE = """
mutation ($input: DemandRecordInput!) {
  demandRecordSave(input: $input) {
    status record { eventId saleId fanId email discoEventId demandLevel dateCreated dateUpdated }
  }
}
"""
INPUT = {"eventId": "evt123", "saleId": "sale456", "email": "fan@example.com"}
UPSERT = "mutation ($input: EntryInput!) { upsertEntry(input: $input) { status eventId } }"
CHECK = "mutation ($user: ID!) { checkLiveness(globalUserId: $user) { sessionId status } }"


def test_the_references_example(filled):
    answer = filled.query(SAVE, fan(), {"input": INPUT})
    saved = answer["data"]["demandRecordSave"]
    assert saved["status"] == "SUCCESS"
    assert {name: saved["record"][name] for name in ("eventId", "saleId", "fanId")} == {
        "eventId": "evt123",
        "saleId": "sale456",
        "fanId": "user123",
    }
    item = filled.sources.demand.items["fan:user123", "demand#evt123-sale456"]
    assert item["email"] == "fan@example.com" and item["memberId"] == "member-1" and item["revision"] == 1


def test_said_again_it_is_merged(filled):
    filled.sources.demand.add(event_pk("evt123"), EVENT_SK, demandLevel="high", discoEventId="d-1")
    first = filled.query(SAVE, fan(), {"input": INPUT})["data"]["demandRecordSave"]["record"]
    filled.sources.demand.items["fan:user123", "demand#evt123-sale456"]["note"] = "kept"
    again = filled.query(SAVE, fan(), {"input": INPUT | {"email": None}})["data"]["demandRecordSave"]["record"]
    assert again["dateCreated"] == first["dateCreated"]
    assert (again["email"], again["demandLevel"], again["discoEventId"]) == ("fan@example.com", "high", "d-1")
    item = filled.sources.demand.items["fan:user123", "demand#evt123-sale456"]
    assert item["note"] == "kept" and item["revision"] == 2


def test_two_requests_at_once_both_count(filled):
    resolver = RESOLVERS["Mutation.demandRecordSave"]

    async def both():
        return await asyncio.gather(
            *(
                resolver.answer({"input": INPUT | {"email": f"{n}@example.com"}}, Request(filled.sources, fan()))
                for n in range(4)
            )
        )

    answers = asyncio.run(both())
    item = filled.sources.demand.items["fan:user123", "demand#evt123-sale456"]
    assert item["revision"] == 4
    assert item["email"] in {answer["record"]["email"] for answer in answers}


@pytest.mark.parametrize("identity", [SERVICE, KEY_WITHOUT_SCOPE, None], ids=["service", "api key", "nobody"])
@pytest.mark.parametrize(
    ("mutation", "variables"),
    [
        (SAVE, {"input": INPUT}),
        (UPSERT, {"input": {"eventId": "evt123"}}),
        (CHECK, {"user": "user123"}),
    ],
    ids=["demandRecordSave", "upsertEntry", "checkLiveness"],
)
def test_nothing_is_done_for_a_caller_who_is_no_fan(filled, identity, mutation, variables):
    from fan_identity.domain.access import NOBODY  # noqa: PLC0415

    answer = filled.query(mutation, identity or NOBODY, variables)
    assert answer["data"] is None
    (error,) = answer["errors"]
    assert (error["message"], error["errorType"], error["errorInfo"]) == (
        "User not logged in",
        "401",
        {"code": "NOT_LOGGED_IN"},
    )
    assert not filled.sources.outbox.events and filled.sources.demand.calls == 0
    assert filled.sources.identity_checks.calls == 0


def test_a_fan_the_account_service_does_not_know_is_not_logged_in(filled):
    answer = filled.query(SAVE, fan("stranger"), {"input": INPUT})
    assert answer["errors"][0]["errorType"] == "401"
    assert filled.sources.demand.calls <= 1  # the event may have been asked for; nothing was written
    assert not any(pk.startswith("fan:") for pk, _ in filled.sources.demand.items)


@pytest.mark.parametrize("away", ["accounts", "demand"])
def test_with_a_source_away_nothing_is_saved(filled, away):
    getattr(filled.sources, away).down = True
    answer = filled.query(SAVE, fan(), {"input": INPUT})
    assert answer["errors"][0]["errorType"] == "503"
    assert not any(pk.startswith("fan:") for pk, _ in filled.sources.demand.items)


@pytest.mark.parametrize("name", ["eventId", "saleId"])
@pytest.mark.parametrize("value", ["", " \n", "x" * 201])
def test_an_id_that_can_name_nothing_is_refused(filled, name, value):
    answer = filled.query(SAVE, fan(), {"input": INPUT | {name: value}})
    assert answer["errors"][0]["errorInfo"] == {"code": "BAD_INPUT"}
    assert name in answer["errors"][0]["message"]


def test_no_two_pairs_of_event_and_sale_share_a_key():
    pairs = [("a-b", "c"), ("a", "b-c"), ("a%2Db", "c"), ("a", "-b-c"), ("a-", "b-c"), ("a", "b"), ("a-b", "")]
    assert len({demand_sk(*pair) for pair in pairs}) == len(pairs)


def test_upsert_entry_is_accepted_and_stored(filled):
    variables = {"input": {"eventId": "evt123", "email": "fan@example.com"}}
    answer = filled.query(UPSERT, fan(member_id="member-1"), variables)
    assert answer["data"]["upsertEntry"] == {"status": "ACCEPTED", "eventId": "event-1"}
    ((kind, detail),) = filled.sources.outbox.events
    assert kind == "user.upsert"
    assert detail.pop("occurredAt").endswith("Z")
    assert detail == {
        "eventId": "evt123",
        "email": "fan@example.com",
        "globalUserId": "user123",
        "memberId": "member-1",
    }


def test_an_entry_that_cannot_be_stored_is_an_error(filled):
    filled.sources.outbox.down = True
    answer = filled.query(UPSERT, fan(), {"input": {"eventId": "evt123"}})
    assert answer["data"] is None and answer["errors"][0]["errorType"] == "503"


def test_check_liveness_starts_a_session_and_stores_it(filled):
    answer = filled.query(CHECK, fan(), {"user": "user123"}, correlation_id="r-1")
    assert answer["data"]["checkLiveness"] == {"sessionId": "session-0", "status": "CREATED"}
    item = filled.sources.verification.items[user_pk("user123"), "LIVENESS#session-0"]
    assert (item["armRisk"], item["accountScore"], item["status"]) == (1, 75, "CREATED")
    again = filled.query(CHECK, fan(), {"user": "user123"}, correlation_id="r-1")
    assert again["data"] == answer["data"] and len(filled.sources.identity_checks.sessions) == 1
    filled.query(CHECK, fan(), {"user": "user123"}, correlation_id="r-2")
    assert len(filled.sources.identity_checks.sessions) == 2


@pytest.mark.parametrize("away", ["fan_identity", "arm"])
def test_an_identity_check_does_not_need_the_scores(filled, away):
    getattr(filled.sources, away).down = True
    answer = filled.query(CHECK, fan(), {"user": "user123"})
    assert answer["data"]["checkLiveness"]["status"] == "CREATED"
    assert answer["extensions"] == {"degraded": [away]}


def test_an_identity_check_of_somebody_else_is_refused(filled):
    answer = filled.query(CHECK, fan("thief"), {"user": "user123"})
    assert answer["errors"][0]["errorType"] == "403"
    assert filled.sources.identity_checks.calls == 0


def test_keys_of_demand_take_any_id():
    assert fan_pk("a#b:c\r\n\0") == "fan:a#b:c\r\n\0"
    assert event_pk("x") != fan_pk("x")


def test_what_cannot_be_stored_is_the_callers_mistake(filled):
    from fan_identity.io.dynamodb.values import ItemTooLargeError  # noqa: PLC0415

    class Full:
        async def add(self, detail_type, detail):
            raise ItemTooLargeError("the item is over 400 KB")

    object.__setattr__(filled.sources, "outbox", Full())
    answer = filled.query(UPSERT, fan(), {"input": {"eventId": "evt123"}})
    assert (answer["errors"][0]["errorType"], answer["errors"][0]["errorInfo"]) == ("400", {"code": "BAD_INPUT"})
