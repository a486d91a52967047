"""DynamoDB Local as table, dead letter store and position store."""

import contextlib
import math
import pickle
import random
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fan_identity.domain.dead_letters import LetterFilter, RedriveAttempt
from fan_identity.domain.keys import causal_version, user_pk
from fan_identity.domain.records import DeadLetter, Failure
from fan_identity.io import aws
from fan_identity.io.addresses import Address, parse_address
from fan_identity.io.dynamodb import calls, dead_letters
from fan_identity.io.dynamodb.dead_letters import DynamoDbDeadLetters
from fan_identity.io.dynamodb.positions import DynamoDbPositions
from fan_identity.io.dynamodb.table import DynamoDbTable
from fan_identity.io.dynamodb.values import ItemTooLargeError, UnsupportedItemError
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.ports import LetterHead, StoredDeadLetter
from fan_identity.io.sqlite import dead_letters as sqlite_dead_letters
from fan_identity.io.sqlite.dead_letters import SqliteDeadLetters
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.io.sqlite.table import SqliteTable

ENDPOINT = "http://127.0.0.1:18000"


@pytest.fixture(autouse=True)
def _needs(server: Callable[[str], None]) -> None:
    server("dynamodb")


def address_of(table: str) -> Address:
    return parse_address(f"dynamodb://{table}?region=us-east-1&endpoint={ENDPOINT}", "table")


@pytest.fixture
def address() -> Iterator[Address]:
    """A table of the test's own."""
    made = address_of(f"test-{uuid.uuid4().hex}")
    DynamoDbTable.of(made, "table").create()
    yield made
    client(made).delete_table(TableName=made.target)


@pytest.fixture
def table(address: Address) -> DynamoDbTable:
    return DynamoDbTable.of(address, "table")


def client(address: Address) -> Any:
    return aws.client("dynamodb", address, "table")


def raw(address: Address, pk: str, sk: str) -> dict[str, Any] | None:
    """An item as any other reader sees it."""
    key = {"PK": {"S": pk}, "SK": {"S": sk}}
    return client(address).get_item(TableName=address.target, Key=key, ConsistentRead=True).get("Item")


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda x: x not in ("PK", "SK", "version"))
sizes = st.just(0.0) | st.floats(1e-130, math.nextafter(1e126, 0))
numbers = st.integers(-(10**38) + 1, 10**38 - 1) | sizes | sizes.map(lambda x: -x)
scalars = (
    st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8"), max_size=20) | st.binary(max_size=9)
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=10
)


@given(st.dictionaries(names, json_values, max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_item_comes_back_equal(table: DynamoDbTable, attributes: dict[str, Any]) -> None:
    item = {"PK": "USER#1", "SK": "A", **attributes}
    table.put(item)
    assert table.get("USER#1", "A") == item


def test_numbers_at_the_edges_come_back_equal(table: DynamoDbTable) -> None:
    edges = [0, -0.0, 5.0, 0.1, 1e23, 1e38, 1e40, 2**53 + 1, 10**38 - 1, 1 - 10**38, 1e-130, math.nextafter(1e126, 0)]
    table.put({"PK": "a", "SK": "b", "edges": edges})
    item = table.get("a", "b")
    assert item is not None and item["edges"] == edges


HOSTILE = [
    "",
    "#",
    "a",
    "a#",
    "a#SCORE#",
    "A",
    "é",
    "e\u0301",
    "\0",
    "\n",
    "\U0001f600",
    "' OR 1=1",
    "x" * 10_000,
    "sha256:",
]


def test_hostile_user_ids_never_reach_anothers_items(table: DynamoDbTable) -> None:
    outcomes = table.batch_put([{"PK": user_pk(user), "SK": "SCORE#1", "of": user} for user in HOSTILE])
    assert outcomes == [None] * len(HOSTILE)
    for user in HOSTILE:
        assert [item["of"] for item in table.query(user_pk(user))] == [user]
        assert table.get(user_pk(user), "SCORE#1") == {"PK": user_pk(user), "SK": "SCORE#1", "of": user}


def test_what_cannot_be_a_key_is_not_there(table: DynamoDbTable) -> None:
    for pk, sk in (("", "b"), ("a", ""), ("p" * 2_049, "b"), ("a", "s" * 1_025), ("\ud800", "b")):
        assert table.get(pk, sk) is None
        assert table.batch_put([{"PK": pk, "SK": sk}, {"PK": "good", "SK": "item"}])[0] is not None
    assert table.query("") == table.query("a", "s" * 1_025) == []
    assert table.get("good", "item") is not None
    assert table.get("good", "nothing") is None


def test_batches_write_everything_and_of_equal_keys_the_last(table: DynamoDbTable) -> None:
    items = [{"PK": f"USER#{number % 90}", "SK": "A", "number": number} for number in range(130)]
    assert table.batch_put(items) == [None] * 130
    assert table.batch_put([]) == []
    for user in range(90):
        item = table.get(f"USER#{user}", "A")
        assert item is not None and item["number"] == (user + 90 if user < 40 else user)


def test_many_keys_are_read_and_deleted(table: DynamoDbTable) -> None:
    items = [{"PK": user_pk(f"é{number}"), "SK": "A", "number": number, "v": "x" * 20_000} for number in range(950)]
    assert table.batch_put(items) == [None] * 950
    keys = [(item["PK"], item["SK"]) for item in items]
    asked = [keys[7], ("", "A"), *reversed(keys), ("nobody", "A"), keys[7], ("p" * 2_049, "A")]  # 19 MB, 16 an answer
    assert table.batch_get(asked) == [items[7], None, *reversed(items), None, items[7], None]
    gone = [*keys[:60], *keys[:3], ("nobody", "A"), ("", "A")]
    table.batch_delete(gone)
    table.batch_delete(gone)
    assert table.batch_get(keys) == [None] * 60 + items[60:]
    assert table.batch_get([]) == []
    table.batch_delete([])


def test_a_version_is_hidden_from_who_reads_many(table: DynamoDbTable) -> None:
    item = {"PK": "USER#a", "SK": "LATEST", "score": 1}
    table.put_if_newer([("007", item)])
    assert table.batch_get([("USER#a", "LATEST")]) == [item]
    table.batch_delete([("USER#a", "LATEST")])
    assert table.put_if_newer([("001", item)]) == [True], "the version went with the item"


def test_partitions_are_queried_side_by_side_and_come_in_their_order(table: DynamoDbTable) -> None:
    table.batch_put([{"PK": f"p{n}", "SK": sk} for n in range(40) for sk in ("A#1", "A#2", "B")])
    found = table.query_many([f"p{n}" for n in reversed(range(41))], "A#")
    assert found == [[], *[[{"PK": f"p{n}", "SK": sk} for sk in ("A#1", "A#2")] for n in reversed(range(40))]]
    assert table.query_many([]) == []


def test_a_version_with_its_imports_counts_as_in_sqlite(table: DynamoDbTable, tmp_path: Path) -> None:
    sqlite = SqliteTable(SqliteStore(tmp_path / "t.db"), "t")
    causes = [
        (time_ms, name, generation, results)
        for time_ms in (1, 2)
        for name in ("a", "a\0", "a\0b")
        for generation in (0, 1, 9)
        for results in (0, 2)
    ]
    random.Random(5).shuffle(causes)
    for cause in causes:
        item = {"PK": "a", "SK": "LATEST", "cause": list(cause)}
        version = causal_version(*cause)
        assert table.put_if_newer([(version, item)]) == sqlite.put_if_newer([(version, item)]), cause
        assert table.get("a", "LATEST") == sqlite.get("a", "LATEST")
    assert table.get("a", "LATEST") == {"PK": "a", "SK": "LATEST", "cause": [2, "a\0b", 9, 2]}


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else "x"


def test_an_item_the_table_never_takes_does_not_fail_its_batch_mates(table: DynamoDbTable) -> None:
    fits = 400 * 1_024 - len("PKaSK00v")
    wrong: dict[int, tuple[Any, str]] = {
        3: ("x" * (fits + 1), "too_large"),
        7: ("é" * 300_000, "too_large"),
        11: (nested(32), "unsupported"),  # found by the server, which does not say which item of the batch it is
        13: (math.nan, "unsupported"),
    }
    good: dict[int, Any] = {0: "x" * fits, 1: nested(31)}
    items = [
        {"PK": "a", "SK": f"{number:02d}", "v": wrong[number][0] if number in wrong else good.get(number, number)}
        for number in range(40)
    ]
    outcomes = table.batch_put(items)
    assert {number: outcome.reason for number, outcome in enumerate(outcomes) if outcome is not None} == {
        number: reason for number, (_, reason) in wrong.items()
    }
    assert table.query("a") == [item for number, item in enumerate(items) if number not in wrong]

    versions = table.put_if_newer([("1", item) for item in items])
    refused = {number: outcome.reason for number, outcome in enumerate(versions) if isinstance(outcome, Failure)}
    # The version is part of the item and counts: what fitted to the byte does not any more.
    assert refused == {0: "too_large", **{number: reason for number, (_, reason) in wrong.items()}}
    assert [outcome for outcome in versions if not isinstance(outcome, Failure)] == [True] * 35

    for number, error in ((3, ItemTooLargeError), (11, UnsupportedItemError)):
        with pytest.raises(error):
            table.put(items[number])


def test_newer_wins_whatever_the_order(table: DynamoDbTable) -> None:
    versions = [f"{number:04d}#é{number}" for number in range(25)]
    writes = [
        (version, {"PK": f"USER#{user}", "SK": "LATEST", "v": version}) for user in range(4) for version in versions
    ]
    random.Random(3).shuffle(writes)
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(table.put_if_newer, [writes[start::4] for start in range(4)]))
    assert all(isinstance(outcome, bool) for batch in outcomes for outcome in batch)
    for user in range(4):
        assert table.get(f"USER#{user}", "LATEST") == {"PK": f"USER#{user}", "SK": "LATEST", "v": versions[-1]}


WRITES: list[tuple[str | None, str]] = [
    ("5", "first"),
    ("5", "same"),
    ("4", "older"),
    ("40", "longer and older"),
    ("5a", "newer"),
    (None, "put without a version"),
    ("1", "older than before, newer than none"),
    ("\uffff", "bytes"),
    ("\U00010000", "greater in bytes, not in UTF-16"),
    ("\ue000", "less"),
]


def test_versions_count_as_in_sqlite(table: DynamoDbTable, tmp_path: Path) -> None:
    sqlite = SqliteTable(SqliteStore(tmp_path / "t.db"), "t")
    for version, text in WRITES:
        item = {"PK": "a", "SK": "LATEST", "text": text}
        if version is None:
            table.put(item)
            sqlite.put(item)
        else:
            assert table.put_if_newer([(version, item)]) == sqlite.put_if_newer([(version, item)]), text
        assert table.get("a", "LATEST") == sqlite.get("a", "LATEST")


def test_writes_of_one_key_in_one_call_keep_their_order(table: DynamoDbTable) -> None:
    def item(key: str, number: int) -> dict[str, Any]:
        return {"PK": key, "SK": "LATEST", "number": number}

    writes = [(version, item(key, int(version))) for version in "2153" for key in "abc"]
    outcomes = table.put_if_newer(writes)
    assert outcomes == [version in "25" for version in "2153" for _ in "abc"]


def test_the_version_is_kept_in_the_item_and_hidden_from_readers(address: Address, table: DynamoDbTable) -> None:
    item = {"PK": "USER#a", "SK": "LATEST", "score": 1}
    table.put_if_newer([("007", item)])
    stored = raw(address, "USER#a", "LATEST")
    assert stored is not None and stored["version"] == {"S": "007"}
    assert table.get("USER#a", "LATEST") == item
    assert table.query("USER#a") == [item]
    assert list(table.latest_items()) == [item]
    with pytest.raises(UnsupportedItemError):
        table.put({**item, "version": 3})


def test_a_foreign_attribute_of_that_name_is_older_than_any_version(address: Address, table: DynamoDbTable) -> None:
    foreign = {"PK": {"S": "a"}, "SK": {"S": "LATEST"}, "version": {"N": "12"}}
    client(address).put_item(TableName=address.target, Item=foreign)
    assert table.put_if_newer([("1", {"PK": "a", "SK": "LATEST"})]) == [True]
    assert table.put_if_newer([("1", {"PK": "a", "SK": "LATEST"})]) == [False]


def test_queries_go_by_prefix_order_and_limit_over_pages(table: DynamoDbTable) -> None:
    scores = [{"PK": "a", "SK": f"SCORE#{number:02d}", "v": "x" * 200_000} for number in range(12)]  # 2.4 MB: 3 pages
    others = [
        {"PK": "a", "SK": "ARAI#1"},
        {"PK": "a", "SK": "SCORE"},
        {"PK": "a", "SK": "SCORF"},
        {"PK": "b", "SK": "SCORE#99"},
    ]
    shuffled = [*scores, *others]
    random.Random(1).shuffle(shuffled)
    table.batch_put(shuffled)

    def found(*arguments: Any, **options: Any) -> list[str]:
        return [item["SK"] for item in table.query(*arguments, **options)]

    keys = [item["SK"] for item in scores]
    assert found("a", "SCORE#") == keys
    assert found("a", "SCORE#", newest_first=True) == keys[::-1]
    for limit in (0, 1, 6, 12, 99):
        assert found("a", "SCORE#", limit=limit) == keys[:limit]
        assert found("a", "SCORE#", newest_first=True, limit=limit) == keys[::-1][:limit]
    assert found("a") == ["ARAI#1", "SCORE", *keys, "SCORF"]
    assert found("a", "SCORE#0") == keys[:10]
    assert found("nobody") == found("a", "Z") == []


def test_latest_items_are_found_over_pages(table: DynamoDbTable) -> None:
    table.batch_put(
        [{"PK": f"USER#{user}", "SK": sk, "v": "x" * 150_000} for user in range(9) for sk in ("LATEST", "SCORE#1")]
    )
    assert sorted(item["PK"] for item in table.latest_items()) == [f"USER#{user}" for user in range(9)]
    assert {item["SK"] for item in table.latest_items()} == {"LATEST"}


def test_a_missing_table_names_the_setting() -> None:
    missing = address_of(f"missing-{uuid.uuid4().hex}")
    table = DynamoDbTable.of(missing, "table")
    item = {"PK": "a", "SK": "b"}
    for call in (
        table.check,
        lambda: table.put(item),
        lambda: table.batch_put([item, {"PK": "c", "SK": "d"}]),
        lambda: table.put_if_newer([("1", item)]),
        lambda: table.get("a", "b"),
        lambda: table.batch_get([("a", "b")]),
        lambda: table.batch_delete([("a", "b")]),
        lambda: table.query("a"),
        lambda: list(table.latest_items()),
        DynamoDbDeadLetters.of(missing, "table").count,
        lambda: DynamoDbPositions.of(missing, "table").load("w", "s"),
    ):
        with pytest.raises(UsageError, match=f"^--table: dynamodb://{missing.target} does not exist"):
            call()


def test_a_table_of_other_keys_names_the_setting() -> None:
    address = address_of(f"other-{uuid.uuid4().hex}")
    client(address).create_table(
        TableName=address.target,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    table = DynamoDbTable.of(address, "table")
    for call in (
        table.check,
        lambda: table.put({"PK": "a", "SK": "b"}),
        lambda: table.batch_put([{"PK": "a", "SK": "b"}, {"PK": "c", "SK": "b"}]),
        lambda: table.get("a", "b"),
        lambda: table.query("a"),
    ):
        with pytest.raises(UsageError, match=r"has other keys; it needs the partition key PK"):
            call()
    client(address).delete_table(TableName=address.target)


def test_a_table_is_created_once_and_then_checks(address: Address, table: DynamoDbTable) -> None:
    table.create()
    table.check()
    pickle.loads(pickle.dumps(table)).check()


def test_a_table_may_be_created_with_a_stream() -> None:
    address = address_of(f"stream-{uuid.uuid4().hex}")
    DynamoDbTable.of(address, "table").create(stream=True)
    described = client(address).describe_table(TableName=address.target)["Table"]
    assert described["StreamSpecification"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    client(address).delete_table(TableName=address.target)


def test_a_server_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(calls, "_CHECK_SECONDS", 0.2)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: it refuses connections
        port = closed.getsockname()[1]
        address = parse_address(f"dynamodb://fans?region=us-east-1&endpoint=http://127.0.0.1:{port}", "table")
        table = DynamoDbTable.of(address, "table")
        item = {"PK": "a", "SK": "b"}
        for call in (table.check, lambda: table.batch_put([item] * 2), lambda: table.put_if_newer([("1", item)])):
            with pytest.raises(BackendUnavailableError, match=r"^--table: dynamodb://fans is out of reach"):
                call()


class FailingProxy:
    """Stands before the server: of the first connections some end at once, some when the answer should come."""

    def __init__(self, failures: int) -> None:
        self._left = failures
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.lost = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def failures_left(self) -> int:
        return self._left

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listening.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with self._lock:
            self._left = max(0, self._left - 1)
            failing, number = self._left > 0, self._left
        if failing and number % 2:
            connection.close()
            return
        with connection, socket.create_connection(("127.0.0.1", 18_000)) as behind:
            forth = threading.Thread(target=self._copy, args=(connection, behind), daemon=True)
            forth.start()
            if failing:
                behind.recv(1)  # done, and nobody is told
                self.lost += 1
                connection.shutdown(socket.SHUT_RDWR)
            else:
                self._copy(behind, connection)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_a_server_that_is_away_and_loses_answers_loses_no_write(
    address: Address, table: DynamoDbTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_DEADLINE_SECONDS", 60.0)
    proxy = FailingProxy(failures=24)
    endpoint = f"http://127.0.0.1:{proxy.port}"
    behind_proxy = DynamoDbTable.of(
        Address("dynamodb", address.target, {**address.options, "endpoint": endpoint}), "table"
    )
    items = [{"PK": f"USER#{number}", "SK": "A"} for number in range(60)]
    assert behind_proxy.batch_put(items) == [None] * 60
    writes = [
        (f"{version}", {"PK": f"USER#{user}", "SK": "LATEST", "v": version})
        for user in range(8)
        for version in (2, 3, 1)
    ]
    behind_proxy.put_if_newer(writes)
    while proxy.failures_left:
        behind_proxy.put_if_newer(writes)
    proxy.close()
    assert proxy.lost > 0
    assert [table.get(item["PK"], "A") for item in items] == items
    assert sorted(item["v"] for item in table.latest_items()) == [3] * 8


# Dead letters


def letter(number: int = 0, **changes: Any) -> DeadLetter:
    made = DeadLetter(
        dead_letter_id=f"{number:032x}",
        worker="scoreUsers",
        reason="malformed",
        error="not JSON",
        stack="",
        attempts=1,
        request_id="r1",
        activity_id=None,
        source="kafka://h/t",
        position="partition 0, offset 7",
        payload=b"\0\xff{",
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def letters(address: Address) -> DynamoDbDeadLetters:
    return DynamoDbDeadLetters.of(address, "dead-letters")


def tried(letter_id: str, outcome: Any = "queued", error: str = "", at: int = 3_000) -> RedriveAttempt:
    return RedriveAttempt(letter_id, at, outcome, error, "r9", "0.9")


def only(found: list[StoredDeadLetter]) -> StoredDeadLetter:
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("size", [0, 300 * 1_024, 300 * 1_024 + 1, 1_024 * 1_024, 3_000_000])
def test_every_byte_of_a_payload_is_kept(letters: DynamoDbDeadLetters, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    written = letter(payload=payload, activity_id="a1", stack="Traceback …")
    letters.write([written])
    letters.write([written])
    assert only(letters.select()).letter == written
    found = letters.get(written.dead_letter_id)
    assert found is not None and found.letter == written


def test_a_letter_of_nothing_but_long_texts_is_kept(letters: DynamoDbDeadLetters) -> None:
    long = "é" * 500_000
    written = letter(activity_id=long, source=long, position=long, request_id=long, payload=b"{}")
    letters.write([written])
    assert only(letters.select()).letter == written
    cut = letter(1, error="e" * 1_000_000, stack="s" * 1_000_000 + "\ud800 the end")
    letters.write([cut])
    found = letters.get(cut.dead_letter_id)
    assert found is not None
    assert (len(found.letter.error), found.letter.stack[-9:]) == (2_000, "? the end")


def all_pages(store: DynamoDbDeadLetters | SqliteDeadLetters, where: LetterFilter, size: int) -> list[LetterHead]:
    page = store.page(where, limit=size)
    found = page.letters
    while page.after is not None:
        page = store.page(where, after=page.after, limit=size)
        found = found + page.letters
    return found


def test_letters_behave_as_in_sqlite(
    letters: DynamoDbDeadLetters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite = SqliteDeadLetters(SqliteStore(tmp_path / "d.db"))
    now = [1_000]
    for module in (dead_letters, sqlite_dead_letters):
        monkeypatch.setattr(module, "now_ms", lambda: now[0])
    big = b"x" * 400_000

    def both(method: str, *arguments: Any, **options: Any) -> Any:
        answers = [getattr(store, method)(*arguments, **options) for store in (letters, sqlite)]
        assert answers[0] == answers[1], (method, arguments)
        return answers[0]

    def look() -> list[StoredDeadLetter]:
        filters: list[dict[str, Any]] = [
            *({}, {"worker": "scoreUsers"}, {"reason": "unreadable"}, {"worker": "nobody"}),
            *({"error": "again"}, {"error": "%"}, {"code_version": "0.9"}, {"code_version": ""}),
            *({"activity_id": "a"}, {"activity_id": "b"}, {"redriven_only": True}),
            *({"since_ms": 2_000}, {"until_ms": 2_000}, {"since_ms": 1_000, "until_ms": 1_001, "error": "a"}),
        ]
        for options in filters:
            for waiting_only in (True, False):
                where = LetterFilter(**options, waiting_only=waiting_only)
                both("select", where)
                both("count", where)
                both("tally", where)
                both("numbers", where)
                both("count_up_to", 2, where)
                listed = [
                    sorted(all_pages(store, where, size), key=str) for store in (letters, sqlite) for size in (1, 9)
                ]
                assert all(one == listed[0] for one in listed), where
                for size in (1, 2, 100):
                    pages = [list(store.pages(where, size=size)) for store in (letters, sqlite)]
                    assert pages[0] == pages[1]
        for number in range(6):
            both("history", letter(number).dead_letter_id)
        for limit in (0, 1, 2, -1):
            both("select", limit=limit)
        return both("select", LetterFilter(waiting_only=False))

    assert look() == []
    both(
        "write",
        [letter(3), letter(1, reason="unreadable", activity_id="a"), letter(2, worker="handleEvent", payload=big)],
    )
    assert len(look()) == 3
    now[0] = 2_000
    both(
        "write",
        [
            letter(4, code_version="0.9"),
            letter(1, attempts=5, error="again"),
            letter(4, attempts=3),
            letter(4, error="last", code_version=""),
        ],
    )
    look()
    now[0] = 3_000
    both("record", [tried(letter(1).dead_letter_id), tried(letter(2).dead_letter_id), tried("unknown")])
    both("record", [tried(letter(3).dead_letter_id, "failed", "é" * 20), tried(letter(1).dead_letter_id, at=3_001)])
    assert [stored.letter.attempts for stored in look()] == [7, 2, 2, 3]
    assert both("count") == 2
    now[0] = 4_000
    both("write", [letter(1, attempts=2, error="waits again")])
    first = both("get", letter(1).dead_letter_id)
    assert (first.written_at_ms, first.redriven_at_ms, first.letter.attempts) == (1_000, None, 7)
    assert first.letter.error == "waits again"
    look()
    for beginning in ("0", "", "f", letter(3).dead_letter_id[:-1], letter(3).dead_letter_id, "x" * 3_000, "#"):
        both("get", beginning)
    both("write", [letter(0xAB << 120)])
    assert both("get", "ab").letter == letter(0xAB << 120)
    both("record", [tried(letter(0xAB << 120).dead_letter_id, at=4_000)])
    assert both("get", "ab").redriven_at_ms == 4_000
    every = sorted(letters.each(), key=lambda stored: stored.letter.dead_letter_id)
    assert every == list(sqlite.each())
    assert len(every) == 5
    both("delete", [letter(2).dead_letter_id, letter(1).dead_letter_id, "unknown", "x" * 3_000])
    assert [stored.letter.dead_letter_id for stored in look()] == [
        letter(n).dead_letter_id for n in (3, 4, 0xAB << 120)
    ]


def test_a_deleted_letter_leaves_no_part(letters: DynamoDbDeadLetters, address: Address) -> None:
    letters.write([letter(1, payload=b"x" * 9_000_000), letter(2)])
    letters.delete([letter(1).dead_letter_id])
    letters.delete([letter(1).dead_letter_id])
    found = client(address).scan(TableName=address.target)["Items"]
    assert [item["PK"]["S"] for item in found] == [f"DEADLETTER#{letter(2).dead_letter_id}"]


def test_letters_share_a_table_with_scores_and_neither_sees_the_other(
    letters: DynamoDbDeadLetters, table: DynamoDbTable
) -> None:
    table.put({"PK": "USER#a", "SK": "LATEST"})
    table.put({"PK": "DEADLETTER#fake", "SK": "LATEST"})
    letters.write([letter(payload=b"x" * 700_000)])
    assert letters.count() == 1
    assert len(list(table.latest_items())) == 2
    assert table.query("USER#a") == [{"PK": "USER#a", "SK": "LATEST"}]


def test_many_writers_of_one_letter_keep_the_most_attempts(letters: DynamoDbDeadLetters) -> None:
    attempts = list(range(1, 41))
    random.Random(5).shuffle(attempts)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: letters.write([letter(attempts=number)]), attempts))
    assert only(letters.select()).letter.attempts == 40


def test_a_letter_without_its_parts_is_an_error_not_half_a_payload(
    address: Address, letters: DynamoDbDeadLetters
) -> None:
    letters.write([letter(payload=b"x" * 700_000)])
    key = {"PK": {"S": f"DEADLETTER#{letter().dead_letter_id}"}, "SK": {"S": "PART#0002"}}
    client(address).delete_item(TableName=address.target, Key=key)
    with pytest.raises(BackendUnavailableError, match="lacks parts"):
        letters.select()


# Positions


def test_positions_are_kept_per_worker_and_source(address: Address) -> None:
    positions = DynamoDbPositions.of(address, "positions")
    sources = [*HOSTILE[1:], "file:///a?x=#1"]
    for number, source in enumerate(sources):
        assert positions.load("w", source) == ""
        positions.commit("w", source, str(number))
        positions.commit("other", source, "9" * 1_000)
    again = DynamoDbPositions.of(address, "positions")
    assert [again.load("w", source) for source in sources] == [str(number) for number in range(len(sources))]
    positions.commit("w", "a", "")
    assert again.load("w", "a") == ""


def test_an_unchanged_position_is_not_written_again(address: Address) -> None:
    positions, other = DynamoDbPositions.of(address, "p"), DynamoDbPositions.of(address, "p")
    positions.commit("w", "s", "1")
    other.commit("w", "s", "2")
    positions.commit("w", "s", "1")
    assert other.load("w", "s") == "2"
    positions.commit("w", "s", "3")
    assert other.load("w", "s") == "3"
