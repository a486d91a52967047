"""handleEvent's events on a real store, with the Identity Service of the sandbox: told once, in order, and refused."""

import json
import threading
import urllib.request
from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fan_identity.domain.activity import MalformedRecordError
from fan_identity.domain.event_signature import SIGNED_FIELDS, signature_of
from fan_identity.domain.events import Consumed
from fan_identity.domain.keys import user_pk
from fan_identity.domain.user_upsert import PROFILE_SK
from fan_identity.domain.verification import VERIFIED_SK, decode_verification, verification_item
from fan_identity.io.caller import CallLimits
from fan_identity.io.consuming import decode_events, keep_events_of_share
from fan_identity.io.errors import UsageError
from fan_identity.io.event_consumers import CONSUMERS, EventStores
from fan_identity.io.fan_verifications import FanVerifications
from fan_identity.io.identity import IdentityClient
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable
from fan_identity.serving.sandbox.server import SandboxThread

from ..shuffled_events import NOW, WORKER, check_shuffled, consume, enveloped, idv, received, upsert

DAY = 24 * 60 * 60_000
QUICK = CallLimits(attempt_seconds=60, deadline_seconds=120, batch_seconds=240, attempts=2, backoff_seconds=0.01)


@pytest.fixture
def store(tmp_path):
    return SqliteStore(tmp_path / "t.db")


@pytest.fixture
def stores(store):
    return EventStores(SqliteTable(store, "verificationTable"), SqliteTable(store, "fanIdentityTable"), None)


@pytest.fixture
def sandbox():
    with SandboxThread() as thread:
        yield thread.address


@pytest.fixture
def telling(stores, sandbox):
    """The stores, with an Identity Service."""
    client = IdentityClient.of(f"{sandbox}/identity", "identity")
    return replace(stores, identity=replace(client, api=replace(client.api, limits=QUICK)))


def ask(address: str, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, data, method=method), timeout=60) as answer:
        return json.load(answer)


def told(sandbox):
    """(verification id, status) in the order the service learnt of them."""
    found = ask(sandbox, "GET", "/identity/verifications")["verifications"]
    return [(each["verificationId"], each["status"]) for each in found]


def newest(stores, user="fan-1"):
    return stores.verifications.get(user_pk(user), VERIFIED_SK)


def reasons(batch):
    return [letter.reason for letter in batch.dead_letters]


def test_both_kinds_in_one_batch_each_have_their_effect(stores):
    counts = Counter()
    done = consume(received(upsert(1, email="f@example.com"), idv(1), enveloped(idv(2), "idv")), stores, counts)
    assert counts == {"stored": 3} and len(done.items) == 3
    assert stores.fans.get(user_pk("fan-1"), PROFILE_SK)["email"] == "f@example.com"
    assert newest(stores)["verificationId"] == "v2"
    assert stores.fans.query(user_pk("fan-1"), "VERIFICATION") == []


def test_an_event_nobody_consumes_is_a_dead_letter_with_its_bytes(stores):
    body = enveloped(b'{"a":1}', "user.deleted")
    done = consume(received(body, enveloped(b"{}", "x" * 10_000), idv(1)), stores)
    assert reasons(done) == ["unknown_event", "unknown_event"]
    assert done.dead_letters[0].payload == body and "user.deleted" in done.dead_letters[0].error
    assert len(done.dead_letters[1].error) < 200
    assert len(done.items) == 1


class Consent(msgspec.Struct, frozen=True):
    global_user_id: str
    given: bool


class Consents:
    """A third consumer, as docs/identity.md tells how to write one."""

    def decode(self, event, sent_at_ms):
        del sent_at_ms
        detail = json.loads(event.body)
        if not isinstance(detail.get("given"), bool):
            raise MalformedRecordError("given is not a boolean")
        return Consent(detail["globalUserId"], detail["given"])

    def consume(self, records, stores, request_id):
        del request_id
        stores.fans.batch_put(
            [{"PK": user_pk(each.global_user_id), "SK": "CONSENT", "given": each.given} for each in records]
        )
        return [Consumed.STORED] * len(records)


def test_a_further_consumer_is_one_line(stores, monkeypatch):
    monkeypatch.setitem(CONSUMERS, "user.consent", Consents())
    good, bad = ({"globalUserId": "fan-1", "given": given} for given in (True, "yes"))
    counts = Counter()
    bodies = [enveloped(json.dumps(each), "user.consent") for each in (good, bad)]
    done = consume(received(*bodies, idv(1), upsert(1)), stores, counts)
    assert counts == {"stored": 3} and reasons(done) == ["malformed"]
    assert stores.fans.get(user_pk("fan-1"), "CONSENT")["given"] is True


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_order_the_newest_stands(stores, seed):
    check_shuffled(stores, ["fan-1", "fan-2", "fan-1#PROFILE", "\0fan", "f" * 10_000, "sha256:x"], seed)


def test_the_same_event_again_is_told_to_nobody(telling, sandbox):
    counts = Counter()
    consume(received(idv(1), idv(1)), telling, counts)
    before = ask(sandbox, "GET", "/calls")["identity"]["calls"]
    consume(received(idv(1), enveloped(idv(1), "idv")), telling, counts)
    assert counts == {"stored": 1, "deduplicated": 3}
    assert told(sandbox) == [("v1", "PASSED")]
    assert ask(sandbox, "GET", "/calls")["identity"]["calls"] == before == 1


def test_a_replayed_passed_after_a_newer_failed_changes_nothing(telling, sandbox):
    old, new = idv(1, at=NOW, provider="p"), idv(2, status="FAILED", at=NOW + 1)
    consume(received(old, new), telling)
    stored = telling.verifications.query(user_pk("fan-1"))
    counts = Counter()
    done = consume(received(old, idv(1, at=NOW, provider="another")), telling, counts)
    assert counts == {"stale": 2} and len(done.items) == 2
    assert telling.verifications.query(user_pk("fan-1")) == stored
    assert told(sandbox) == [("v1", "PASSED"), ("v2", "FAILED")]


def test_a_result_that_comes_late_is_kept_and_told_to_nobody(telling, sandbox):
    counts = Counter()
    consume(received(idv(2, status="FAILED", at=NOW + 1)), telling, counts)
    consume(received(idv(1, at=NOW)), telling, counts)
    assert counts == {"stored": 1, "stale": 1}
    assert newest(telling)["verificationId"] == "v2"
    assert len(telling.verifications.query(user_pk("fan-1"), "VERIFICATION#")) == 2
    assert told(sandbox) == [("v2", "FAILED")]


def test_while_the_service_is_away_results_are_stored_and_come_again_in_order(telling, sandbox):
    """And entries are not held up by it."""
    ask(sandbox, "PUT", "/faults", {"identity": {"status": 503}})
    bodies = [idv(1), upsert(1), idv(2, status="FAILED", at=NOW + 1), upsert(2, at=NOW + 1), idv(3, "fan-2")]
    counts = Counter()
    batch = received(*bodies)
    done = consume(batch, telling, counts)
    assert counts == {"stored": 2}
    assert [returned.receipt for returned in done.returned] == ["receipt0", "receipt2", "receipt4"]
    assert done.returned[0].delay_ms == done.returned[1].delay_ms, "none of a user's comes before the other"
    assert newest(telling)["status"] == "FAILED", "scores know of it already"
    assert telling.fans.get(user_pk("fan-1"), PROFILE_SK)["messageId"] == "m2"
    ask(sandbox, "DELETE", "/faults")
    again = [bodies[0], bodies[2], bodies[4]]
    consume(received(*again, receives=2), telling, counts)
    assert counts == {"stored": 5}
    assert [each for each in told(sandbox) if each[0] != "v3"] == [("v1", "PASSED"), ("v2", "FAILED")]
    assert len(told(sandbox)) == 3


@pytest.mark.parametrize("seed", range(6))
def test_through_failures_nothing_is_lost_and_nobody_is_told_out_of_order(telling, sandbox, seed):
    """What is given back comes again in its order, until all is done."""
    ask(sandbox, "PUT", "/faults", {"identity": {"status": 503, "rate": 0.6}})
    waiting = [idv(n, f"fan-{n % 3}", ["PASSED", "FAILED"][(n + seed) % 2], NOW + n) for n in range(18)]
    counts = Counter()
    for _ in range(400):
        if not waiting:
            break
        batch = received(*waiting[:7])
        back = {returned.receipt for returned in consume(batch, telling, counts).returned}
        kept = [message.body for message in batch.items if message.receipt in back]
        waiting = [*kept, *waiting[7:]]
    assert not waiting and counts == {"stored": 18}
    by_user = {user: [name for name, _ in told(sandbox) if int(name[1:]) % 3 == user] for user in range(3)}
    assert by_user == {user: [f"v{n}" for n in range(user, 18, 3)] for user in range(3)}


def test_a_refused_result_is_a_dead_letter_and_holds_up_nothing(telling, sandbox):
    ask(sandbox, "PUT", "/faults", {"identity": {"status": 400, "count": 1}})
    counts = Counter()
    done = consume(received(idv(1), idv(2, at=NOW + 1)), telling, counts)
    assert reasons(done) == ["identity_refused"] and counts == {"stored": 1}
    assert told(sandbox) == [("v2", "PASSED")]


def test_a_result_that_was_given_back_too_often_is_given_up_on(telling, sandbox):
    ask(sandbox, "PUT", "/faults", {"identity": {"status": 503}})
    assert reasons(consume(received(idv(1), receives=10), telling)) == ["identity_unavailable"]
    assert reasons(consume(received(idv(1), receives=11), telling)) == ["too_many_receives"]


def test_two_workers_with_the_same_result_tell_of_it_under_one_key(telling, sandbox):
    ready = threading.Barrier(4)

    def work():
        ready.wait()
        consume(received(idv(1)), telling)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told(sandbox) == [("v1", "PASSED")]


class Meanwhile:
    """A table or service of one worker; before and after its n-th call, all of them together, something happens."""

    def __init__(self, at, event):
        self._left = at
        self._event = event

    def around(self, client):
        return _Watched(client, self.passed)

    def passed(self):
        self._left -= 1
        if self._left == 0:
            self._event()


class _Watched:
    def __init__(self, client, passed):
        self._client = client
        self._passed = passed

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def call(*arguments, **more):
            self._passed()
            answer = method(*arguments, **more)
            self._passed()
            return answer

        return call


STEPS = ["compare", "store", "read results", "keep newest", "tell", "look again"]


@pytest.mark.parametrize("at", range(1, 2 * len(STEPS) + 1))
def test_whenever_another_worker_consumes_a_newer_result_the_service_hears_that_last(telling, sandbox, at):
    """One interleaving before and one after each step of the slower worker, which has the older result."""
    newer = Counter()
    meanwhile = Meanwhile(at, lambda: consume(received(idv(2, status="FAILED", at=NOW + 1)), telling, newer))
    tables, identity = meanwhile.around(telling.verifications), meanwhile.around(telling.identity)
    older = Counter()
    consume(received(idv(1, at=NOW)), replace(telling, verifications=tables, identity=identity), older)
    assert newer == {"stored": 1}, "each is an interleaving of this test"
    step = STEPS[(at - 1) // 2]
    assert newest(telling)["status"] == "FAILED"
    assert told(sandbox)[-1] == ("v2", "FAILED")
    if STEPS.index(step) < STEPS.index("read results"):
        assert (told(sandbox), older) == ([("v2", "FAILED")], {"stale": 1})
    assert len(telling.verifications.query(user_pk("fan-1"), "VERIFICATION#")) == 2, "it is kept"
    before = told(sandbox)
    again = Counter()
    consume(received(idv(1, at=NOW), idv(2, status="FAILED", at=NOW + 1)), telling, again)
    assert again == {"stale": 1, "deduplicated": 1} and told(sandbox) == before


def test_a_newer_result_that_cannot_be_told_again_is_logged_and_holds_up_nothing(telling, sandbox, caplog):
    def fail():
        consume(received(idv(2, status="FAILED", at=NOW + 1)), telling)
        ask(sandbox, "PUT", "/faults", {"identity": {"status": 503}})

    identity = Meanwhile(2, fail).around(telling.identity)
    counts = Counter()
    consume(received(idv(1)), replace(telling, identity=identity), counts)
    assert counts == {"stored": 1}
    assert [record.args for record in caplog.records if "told again" in record.msg] == [(1,)]


def test_a_result_comes_again_while_the_service_is_away_and_is_told_though_it_was_stored(telling, sandbox):
    ask(sandbox, "PUT", "/faults", {"identity": {"status": 503}})
    assert len(consume(received(idv(1)), telling).returned) == 1
    ask(sandbox, "DELETE", "/faults")
    counts = Counter()
    consume(received(idv(1), receives=2), telling, counts)
    assert counts == {"stored": 1} and told(sandbox) == [("v1", "PASSED")]


def test_whoever_died_before_the_newest_was_written_is_made_up_for(stores):
    """Also where what comes again is a late result."""
    consume(received(idv(2, status="PENDING", at=NOW + 1)), stores)
    late = decode_verification(idv(1, status="FAILED"), 0)
    stores.verifications.batch_put([verification_item(late, NOW)])
    assert newest(stores)["results"] == 1
    counts = Counter()
    consume(received(idv(1, status="FAILED")), stores, counts)
    assert counts == {"stale": 1}
    assert FanVerifications(stores.verifications).known([("fan-1", NOW + 2)]) == [(late, 2)]


def signed(secret, number=1, **more):
    fields = json.loads(idv(number, **more))
    signature = signature_of([fields[name] for name in SIGNED_FIELDS], secret)
    return json.dumps({**fields, "signature": signature}).encode()


def test_with_secrets_only_signed_results_are_taken(stores, monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_IDV_SECRETS", "new-secret, old-secret")
    stolen = {**json.loads(signed("new-secret", 1)), "globalUserId": "fan-2"}
    turned = {**json.loads(signed("new-secret", 1, status="FAILED")), "status": "PASSED"}
    untimed = {name: value for name, value in json.loads(signed("new-secret")).items() if name != "occurredAt"}
    forged = [idv(1), signed("wrong"), *(json.dumps(each).encode() for each in (stolen, turned, untimed))]
    counts = Counter()
    good = [signed("new-secret", 1), enveloped(signed("old-secret", 2), "idv"), upsert(1)]
    done = consume(received(*forged, *good), stores, counts)
    assert reasons(done) == ["forged"] * len(forged)
    assert counts == {"stored": len(good)}
    assert newest(stores, "fan-2") is None
    assert all("fan-" not in letter.error and "secret" not in letter.error for letter in done.dead_letters)


def test_who_may_send_one_type_cannot_wrap_another_into_it(stores):
    """A rule of the bus has seen the outer type only."""
    smuggled = enveloped(upsert(1), "idv", source="idv")
    notified = {"Type": "Notification", "MessageId": "n", "Message": upsert(1).decode()}
    counts = Counter()
    bodies = [smuggled, enveloped(json.dumps(notified), "idv"), enveloped(upsert(2), "user.upsert")]
    done = consume(received(*bodies), stores, counts)
    assert reasons(done) == ["forged", "forged"] and counts == {"stored": 1}
    assert stores.fans.get(user_pk("fan-1"), PROFILE_SK)["messageId"] == "m2"


def test_secrets_that_are_set_and_empty_are_a_mistake(monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_IDV_SECRETS", " , ")
    with pytest.raises(UsageError, match="FAN_IDENTITY_IDV_SECRETS holds no secret"):
        decode_events(received(idv(1)), WORKER)


@pytest.mark.parametrize("at", [NOW + 10 * DAY, NOW - 31 * DAY, 0, "9999-12-31T23:59:59Z"])
def test_events_that_are_not_of_our_time_are_refused(stores, at):
    done = consume(received(idv(1, at=at), upsert(1, at=at)), stores)
    assert reasons(done) == ["out_of_time", "out_of_time"]
    assert stores.verifications.query(user_pk("fan-1")) == stores.fans.query(user_pk("fan-1")) == []


HOSTILE = [
    b"",
    b"\0" * 1_000,
    b"[" * 100_000,
    b'{"detail":' * 5_000,
    idv(1).replace(b"PASSED", "PA\u00dfED".encode()),
    idv(1, status="PASSED\0"),
    idv(1, at=10**300),
    idv(1, at=True),
    idv(1, user=["fan-1"]),
    enveloped(b'{"globalUserId":"fan-1"}', "user.upsert"),
    upsert(1, email={"deep": [[[[]]]]}),
    upsert(1, marketingConsent="yes"),
]


@pytest.mark.parametrize("body", HOSTILE)
def test_a_hostile_event_is_a_dead_letter_and_its_mates_are_consumed(stores, body):
    counts = Counter()
    done = consume(received(idv(7), body, upsert(7)), stores, counts)
    assert reasons(done) == ["malformed"] and counts == {"stored": 2}
    assert done.dead_letters[0].payload == body


@pytest.mark.parametrize("user", ["f" * 10_000, "a\0b", "#", "USER#fan-1", "fan-1#VERIFICATION", "\u202e", "'; DROP"])
def test_hostile_ids_have_items_of_their_own(stores, user):
    consume(received(idv(1), upsert(1)), stores)
    before = stores.verifications.query(user_pk("fan-1")), stores.fans.query(user_pk("fan-1"))
    consume(received(idv("x" * 10_000, user, "FAILED"), upsert("#\0", user, postalCode="9")), stores)
    assert newest(stores, user)["globalUserId"] == user
    assert stores.fans.get(user_pk(user), PROFILE_SK)["postalCode"] == "9"
    assert (stores.verifications.query(user_pk("fan-1")), stores.fans.query(user_pk("fan-1"))) == before


class Half:
    """On for some users."""

    def includes(self, worker, global_user_id):
        return worker == WORKER and global_user_id.endswith("1")


def test_events_of_users_the_worker_is_off_for_are_dropped_and_counted(stores):
    counts = Counter()
    batch = decode_events(received(idv(1), upsert(1, "fan-2"), idv(2, "fan-2")), WORKER)
    kept = keep_events_of_share(batch, Half(), WORKER, lambda name, number: counts.update({name: number}))
    assert [event.record.global_user_id for event in kept.items] == ["fan-1"]
    assert counts == {"rejected.flagged_off": 2}
