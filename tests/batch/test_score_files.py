"""Files in, scores out: the same activities leave the same bytes, whatever their order, cut, format and batches."""

import contextlib
import json
import random
import sqlite3
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fan_identity.batch.simulate import INTERNAL_ACCOUNTS, UNKNOWN_TYPES

START_MS = 1_718_355_600_000
MINUTE_MS = 60_000
HOT_USER_ACTIVITIES = 1_300
MONITORS = {"FAN_IDENTITY_INTERNAL_ACCOUNTS": ",".join(INTERNAL_ACCOUNTS)}


def activity(activity_id: str, user: str, time_ms: int, kind: str = "pageView", **fields: Any) -> bytes:
    fields = {"activityId": activity_id, "globalUserId": user, "activityType": kind, "occurredAt": time_ms, **fields}
    return json.dumps(fields).encode()


def twins() -> list[bytes]:
    """Different activities under one id each: at different times, of different users, of different types."""
    noon = START_MS + 3 * 60 * MINUTE_MS
    return [
        activity("twin-time", "twin-a", noon + 5_000, "search"),
        activity("twin-time", "twin-a", noon, "login"),
        activity("twin-time", "twin-a", noon + 9_000, "purchase"),
        activity("twin-user", "twin-b", noon, "login"),
        activity("twin-user", "twin-c", noon, "login"),
        activity("twin-type", "twin-d", noon, "purchase"),
        activity("twin-type", "twin-d", noon, "signUp"),
        # One of each pair failed: its user's share of failures depends on which of them the profile keeps.
        *(
            activity(f"twin-outcome-{n}", "twin-e", noon + n, "login", attributes={"outcome": outcome})
            for n in range(8)
            for outcome in ("failure", "success")
        ),
        *(activity(f"twin-after-{user}", f"twin-{user}", noon + MINUTE_MS, "eventView") for user in "abcde"),
    ]


def crowd() -> list[bytes]:
    """Five activities in one millisecond, one activity four times, and a user beyond a profile's window."""
    noon = START_MS + 3 * 60 * MINUTE_MS
    same_moment = [
        activity(f"burst-{n}", "burst", noon, kind) for n, kind in enumerate(("login", "search", "login", "purchase"))
    ]
    repeated = [activity("again", "burst", noon + 7, "search")] * 4
    rng = random.Random(5)
    hot = [
        activity(f"hot-{n}", "hot", START_MS + n * 9_000 + rng.randrange(4_000), rng.choice(("search", "pageView")))
        for n in range(HOT_USER_ACTIVITIES)
    ]
    return [*same_moment, activity("burst-4", "burst", noon, "checkout"), *repeated, *hot]


def refuse_constant(name: str) -> None:
    raise ValueError(name)


def decoded(line: bytes) -> dict[str, Any] | None:
    """An activity, or None where the line is none: told without the program's own decoder."""
    try:
        fields = json.loads(line, parse_constant=refuse_constant)
    except ValueError:
        return None
    if not isinstance(fields, dict) or not all(isinstance(fields.get(k), str) for k in ("activityId", "activityType")):
        return None
    return fields if time_of(fields) is not None else None


def time_of(fields: dict[str, Any]) -> int | None:
    when = fields.get("occurredAt")
    if isinstance(when, int):
        return when
    try:
        return round(datetime.fromisoformat(str(when)).timestamp() * 1_000)
    except ValueError:
        return None


def verdict(line: bytes) -> str:
    """What must become of a line, told without the program's own rules."""
    fields = decoded(line)
    if fields is None:
        return "malformed"
    if fields["activityType"] in UNKNOWN_TYPES:
        return "unknown_type"
    if not fields["globalUserId"].strip():
        return "blank_user"
    time_ms = time_of(fields)
    assert time_ms is not None
    if time_ms < 10_000:
        return "too_old"
    if time_ms > 4_000_000_000_000:
        return "in_future"
    return "internal_account" if fields["globalUserId"] in INTERNAL_ACCOUNTS else "scorable"


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def lines(sale) -> list[bytes]:
    """A sale as it arrives, with what is difficult mixed in."""
    extras = [*twins(), *crowd()]
    arriving = [*sale(120, 10, seed=11, late=0.1, duplicates=0.03, malformed=0.01, strays=0.004), *extras]
    rng = random.Random(1)
    for _ in range(len(extras)):  # the extras arrive among the others
        arriving.insert(rng.randrange(len(arriving)), arriving.pop())
    return arriving


@pytest.fixture(scope="module")
def undisturbed(lines, commands, tmp_path_factory) -> bytes:
    """The dump of one run over the input as it arrives."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source = write(folder / "sale.jsonl", lines)
    store = f"sqlite:///{folder / 'fans.db'}"
    assert commands("score", source, "--store", store, env=MONITORS).code == 1
    return commands("dump", "--store", store).out


def check_books(books: dict[str, Any], lines: list[bytes]) -> None:
    """The program's books are those told from the input alone."""
    expected = Counter(map(verdict, lines))
    scorable = [json.loads(line)["activityId"] for line in lines if verdict(line) == "scorable"]
    assert books["read"] == len(lines)
    assert books["deadLettered"] == {"malformed": expected.pop("malformed")}
    assert books["scored"] == books["enqueued"] == len(set(scorable))
    assert books["deduplicated"] == expected.pop("scorable") - len(set(scorable))
    assert books["rejected"] == dict(expected)
    balance(books)


def balance(books: dict[str, Any]) -> None:
    became = ("rejectedTotal", "deduplicated", "scored", "deadLetteredTotal", "waitingAfter")
    assert books["read"] + books["waitingBefore"] == sum(books[name] for name in became)
    assert books["unaccounted"] == 0


def test_books_equal_what_the_input_holds_and_every_reason_is_in_it(store, lines, tmp_path):
    assert set(map(verdict, lines)) == {
        *("malformed", "unknown_type", "blank_user", "too_old", "in_future", "internal_account", "scorable")
    }
    check_books(store.score(write(tmp_path / "sale.jsonl", lines), env=MONITORS), lines)
    assert Counter(payload for _, _, payload in store.dead_letters()) == Counter(
        line for line in lines if verdict(line) == "malformed"
    )


def test_replaying_the_same_input_changes_nothing(store, lines, tmp_path, undisturbed):
    source = write(tmp_path / "sale.jsonl", lines)
    check_books(store.score(source, env=MONITORS), lines)
    letters = store.dead_letters()
    books = store.score(source, env=MONITORS)
    assert books["read"] == len(lines)
    assert books["scored"] == 0, "within the deduplication window"
    balance(books)
    # Past the window everything is scored again; the items stay the same.
    with_window_past(store)
    books = store.score(source, env=MONITORS)
    check_books(books, lines)
    assert store.dump() == undisturbed
    assert store.dead_letters() == letters


def with_window_past(store) -> None:
    """Turns the clock: what was sent so far was sent ten minutes ago."""
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE deduplication SET sent_at = sent_at - 600000")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_input_leaves_the_same_bytes(store, lines, tmp_path, undisturbed, seed):
    shuffled = random.Random(seed).sample(lines, len(lines))
    check_books(store.score(write(tmp_path / "sale.jsonl", shuffled), env=MONITORS), lines)
    assert store.dump() == undisturbed


@pytest.mark.parametrize("minutes", [61, 180.05, 1_000])
def test_input_cut_at_a_moment_leaves_the_same_bytes(store, lines, tmp_path, undisturbed, minutes):
    moment = START_MS + minutes * MINUTE_MS
    before = [line for line in lines if (fields := decoded(line)) and (time_of(fields) or 0) < moment]
    after = [line for line in lines if line not in set(before)]
    assert before
    assert after
    first = store.score(write(tmp_path / "before.jsonl", before), env=MONITORS)
    second = store.score(write(tmp_path / "after.jsonl", after), env=MONITORS)
    balance(first)
    balance(second)
    assert first["read"] + second["read"] == len(lines)
    assert store.dump() == undisturbed


@pytest.mark.parametrize("size", [29, 10_000])
def test_other_batch_sizes_leave_the_same_bytes(store, lines, tmp_path, undisturbed, size):
    source = write(tmp_path / "sale.jsonl", lines)
    check_books(store.score(source, env={**MONITORS, "FAN_IDENTITY_BATCH_SIZE": str(size)}), lines)
    assert store.dump() == undisturbed


def test_two_workers_leave_the_same_bytes_and_score_in_order(store, lines, tmp_path, undisturbed):
    cut = len(lines) // 2
    first, second = write(tmp_path / "1.jsonl", lines[:cut]), write(tmp_path / "2.jsonl", lines[cut:])
    result = store.cli(
        *("score", first, second, *store.flag, "--json", "--"),
        *("--direct_num_workers=2", "--direct_running_mode=multi_processing"),
        env=MONITORS,
    )
    assert result.code == 1
    check_books(result.json, lines)
    assert store.dump() == undisturbed
    # Two files are read side by side: order holds within a file, for what stands in one file only.
    in_file = [activity_ids(part) for part in (lines[:cut], lines[cut:])]
    for part, other in ((lines[:cut], in_file[1]), (lines[cut:], in_file[0])):
        assert_in_order(store, [line for line in part if activity_ids([line]) - other])


def activity_ids(lines: list[bytes]) -> set[str]:
    return {fields["activityId"] for line in lines if (fields := decoded(line))}


@pytest.mark.parametrize("seed", [0, 4])
def test_messages_of_one_user_are_scored_in_the_order_they_came(store, lines, tmp_path, seed):
    arriving = random.Random(seed).sample(lines, len(lines)) if seed else lines
    store.score(write(tmp_path / "sale.jsonl", arriving), env={**MONITORS, "FAN_IDENTITY_BATCH_SIZE": "100"})
    assert_in_order(store, arriving)


def assert_in_order(store, arriving: list[bytes]) -> None:
    """The table got each user's scores in the order of their first arrival."""
    place: dict[str, int] = {}
    for number, line in enumerate(arriving):
        if verdict(line) == "scorable":
            place.setdefault(json.loads(line)["activityId"], number)
    checked = 0
    for user, ids in store.ids_by_user().items():
        if user.startswith("twin-"):
            continue  # which of two activities under one id is scored decides their place
        places = [place[one] for one in ids if one in place]
        assert places == sorted(places), user
        checked += len(places)
    assert checked > len(place) * 0.9


def test_of_activities_under_one_id_the_earliest_is_scored(store, tmp_path):
    for name, given in (("forth", twins()), ("back", twins()[::-1])):
        books = store.score(write(tmp_path / f"{name}.jsonl", given))
        balance(books)
        (kept,) = [item for item in store.score_items() if item["activityId"] == "twin-time"]
        assert (kept["activityType"], kept["occurredAt"]) == ("login", "2024-06-14T12:00:00.000Z")
    for shared in ("twin-user", "twin-type"):
        assert len([item for item in store.score_items() if item["activityId"] == shared]) == 1


def test_activities_of_one_millisecond_keep_a_score_each(store, tmp_path):
    store.score(write(tmp_path / "crowd.jsonl", crowd()))
    moment = [item for item in store.score_items() if item["activityId"].startswith("burst-")]
    assert sorted(item["activityId"] for item in moment) == [f"burst-{n}" for n in range(5)]
    assert len({item["SK"] for item in moment}) == 5
    assert len({item["occurredAt"] for item in moment}) == 1


def fields_as_columns(line: bytes) -> dict[str, Any]:
    fields = json.loads(line)
    context = fields.pop("context", {})
    return {**fields, **context, "outcome": fields.pop("attributes", {}).get("outcome")}


COLUMNS = (
    *("activityId", "globalUserId", "activityType", "occurredAt", "memberId", "eventId", "saleId"),
    *("ipAddress", "deviceId", "userAgent", "outcome"),
)


def write_csv(path: Path, lines: list[bytes]) -> Path:
    rows = [fields_as_columns(line) for line in lines]
    cells = [",".join("" if row.get(column) is None else str(row[column]) for column in COLUMNS) for row in rows]
    path.write_text("\n".join([",".join(COLUMNS), *cells, ""]))
    return path


def write_parquet(path: Path, lines: list[bytes]) -> Path:
    rows = [fields_as_columns(line) for line in lines]
    columns: dict[str, Any] = {column: [row.get(column) for row in rows] for column in COLUMNS}
    times = [datetime.fromtimestamp((time_of(row) or 0) / 1_000, UTC) for row in rows]
    columns["occurredAt"] = pa.array(times, pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table(columns), path, row_group_size=700)
    return path


def test_jsonl_csv_and_parquet_of_the_same_activities_leave_the_same_bytes(make_store, lines, tmp_path):
    one_time = {b'"twin-user"', b'"twin-type"', b'"twin-outcome'}  # at one time the contents decide: see the test below
    chosen = [line for line in lines if decoded(line) and not any(twin in line for twin in one_time)]
    jsonl, csv, parquet = make_store("jsonl"), make_store("csv"), make_store("parquet")
    books = [
        jsonl.score(write(tmp_path / "a.jsonl", chosen)),
        csv.score(write_csv(tmp_path / "a.csv", chosen)),
        parquet.score(write_parquet(tmp_path / "a.parquet", chosen)),
    ]
    for one in books:
        balance(one)
        assert (one["read"], one["scored"], one["deduplicated"]) == tuple(
            books[0][name] for name in ("read", "scored", "deduplicated")
        )
        assert one["rejected"] == books[0]["rejected"]
    assert csv.dump() == jsonl.dump()
    assert parquet.dump() == jsonl.dump()


def test_conflicts_within_a_millisecond_end_alike_in_every_format(make_store, tmp_path):
    noon = START_MS + 3 * 60 * MINUTE_MS
    chosen = [activity(f"same-{n}", f"{side}-{n}", noon) for n in range(30) for side in "lr"]
    jsonl, csv, parquet = make_store("jsonl"), make_store("csv"), make_store("parquet")
    jsonl.score(write(tmp_path / "a.jsonl", chosen))
    csv.score(write_csv(tmp_path / "a.csv", chosen))
    parquet.score(write_parquet(tmp_path / "a.parquet", chosen))
    assert csv.dump() == jsonl.dump()
    assert parquet.dump() == jsonl.dump()


def test_a_late_activity_never_replaces_a_newer_score(store, tmp_path):
    def latest() -> tuple[list[bytes], list[bytes]]:
        dumped = store.dump().splitlines()
        return [x for x in dumped if b'"SK":"LATEST"' in x], [x for x in dumped if x.startswith(b'{"cacheKey"')]

    def scored(name: str, *activities: bytes) -> None:
        assert store.score(write(tmp_path / f"{name}.jsonl", list(activities)))["scored"] == len(activities)

    scored("first", *(activity(f"m-{n}", "fan", START_MS + n * MINUTE_MS) for n in range(4)))
    before = latest()
    assert [len(part) for part in before] == [1, 1]
    assert json.loads(before[0][0])["activityId"] == "m-3"
    scored("late", activity("late", "fan", START_MS + 90_000, "purchase"))
    assert latest() == before
    scored("same moment, lower id", activity("a-lower", "fan", START_MS + 3 * MINUTE_MS))
    assert latest() == before
    scored("same moment, greater id", activity("z-greater", "fan", START_MS + 3 * MINUTE_MS))
    (item,), _ = latest()
    assert json.loads(item)["activityId"] == "z-greater"
    scored("newer", activity("newer", "fan", START_MS + 4 * MINUTE_MS))
    (item,), (entry,) = latest()
    assert json.loads(item)["activityId"] == "newer"
    assert json.loads(entry)["value"]["timestamp"] == START_MS + 4 * MINUTE_MS
    assert store.scores() == 8
    # A replay of all of it, the late one last, leaves it so.
    with_window_past(store)
    before = latest()
    scored("again", activity("newer", "fan", START_MS + 4 * MINUTE_MS), activity("m-0", "fan", START_MS))
    assert latest() == before


def test_reasons_add_up_exactly_to_every_score(undisturbed):
    items = [json.loads(line) for line in undisturbed.splitlines() if b'"PK"' in line]
    assert len(items) > 2_000
    for item in items:
        points = [item["baseScore"], item["otherPoints"], *(reason["points"] for reason in item["reasons"])]
        hundredths = [round(value * 100) for value in points]
        assert [value / 100 for value in hundredths] == points, "every number is exact in hundredths"
        assert sum(hundredths) == round(item["accountScore"] * 100)
        assert 0 <= item["accountScore"] <= 100
    assert any(item["otherPoints"] for item in items)


def test_what_an_earlier_run_left_in_the_queue_is_in_the_books(store, cli, lines, tmp_path, undisturbed):
    cut = len(lines) // 3
    first, rest = write(tmp_path / "first.jsonl", lines[:cut]), write(tmp_path / "rest.jsonl", lines[cut:])
    left = cli("run", "enqueueFromStream", "--source", first, *store.flag, "--json", env=MONITORS)
    waiting = left.json["enqueued"]
    assert store.waiting() == waiting > 0
    books = store.score(rest, env=MONITORS)
    assert books["waitingBefore"] == waiting
    assert books["waitingAfter"] == 0
    balance(books)
    assert store.dump() == undisturbed
