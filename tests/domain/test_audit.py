"""The audit log's chain: whatever is done to its lines shows, and where."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.access import CallerKind, Identity
from fan_identity.domain.audit import (
    START,
    Entry,
    Fault,
    Outcome,
    Verdict,
    canonical,
    line_after,
    line_item,
    line_of,
    subject_of,
    unfinished,
    verify,
)

KEY = b"k" * 32
TEXT = st.text(max_size=12)
ENTRIES = st.builds(
    Entry,
    reference=st.text(max_size=4),
    subject=TEXT,
    action=TEXT,
    target=TEXT,
    outcome=st.sampled_from(Outcome),
    details=st.dictionaries(TEXT, TEXT | st.integers(-(2**53), 2**53), max_size=3),
    request_id=TEXT,
)


def chain(entries: list[Entry], key: bytes | None = None) -> list[dict[str, Any]]:
    head = None
    items = []
    for number, entry in enumerate(entries):
        head = line_after(head, entry, 1_000 + number, key)
        items.append(line_item(head))
    return items


def entry(number: int = 0, **changed: Any) -> Entry:
    fields = {
        "reference": f"r{number}",
        "subject": "service:a",
        "action": "flags.switch",
        "target": "scoreUsers",
        "outcome": Outcome.DONE,
    }
    return Entry(**{**fields, **changed})


def log(number: int = 6, key: bytes | None = None) -> list[dict[str, Any]]:
    return chain([entry(one) for one in range(number)], key)


@given(st.lists(ENTRIES, max_size=8), st.sampled_from([None, KEY]))
def test_an_untouched_log_is_whole(entries: list[Entry], key: bytes | None) -> None:
    items = chain(entries, key)
    head = items[-1]["hash"] if items else START
    keyed_from = 1 if items and key else None
    assert verify(items, key, head=head, count=len(items)) == Verdict(len(items), head, keyed_from=keyed_from)
    # As stored: through JSON and back.
    assert verify([json.loads(json.dumps(item)) for item in items], key).whole


@given(st.data(), st.lists(ENTRIES, min_size=1, max_size=6), st.sampled_from([None, KEY]))
def test_any_change_of_any_field_shows_at_its_line(
    data: st.DataObject, entries: list[Entry], key: bytes | None
) -> None:
    items = chain(entries, key)
    place = data.draw(st.integers(0, len(items) - 1))
    field = data.draw(st.sampled_from([name for name in items[0] if name not in ("PK", "SK", "type")]))
    value = data.draw(TEXT | st.integers() | st.booleans() | st.none() | st.dictionaries(TEXT, TEXT, max_size=2))
    if value == items[place][field] and type(value) is type(items[place][field]):
        return
    items[place] = {**items[place], field: value}
    verdict = verify(items, key)
    assert (verdict.seq, verdict.lines) == (place + 1, place)


@given(st.data(), st.integers(2, 7), st.sampled_from([None, KEY]))
def test_removing_inserting_and_reordering_show(data: st.DataObject, number: int, key: bytes | None) -> None:
    items = log(number, key)
    place = data.draw(st.integers(0, number - 2))
    removed = items[:place] + items[place + 1 :]
    assert verify(removed, key).seq == place + 1
    with_hole: list[Any] = [*items[:place], None, *items[place + 1 :]]
    assert (verify(with_hole, key).seq, verify(with_hole, key).fault) == (place + 1, Fault.MISSING)
    inserted = [*items[: place + 1], items[place], *items[place + 1 :]]
    assert (verify(inserted, key).seq, verify(inserted, key).fault) == (place + 2, Fault.REPEATED)
    other = data.draw(st.permutations(items).filter(lambda order: order != items))
    assert not verify(other, key).whole


@given(st.integers(1, 6), st.data())
def test_a_cut_tail_shows_by_a_head_or_a_count_noted_elsewhere(number: int, data: st.DataObject) -> None:
    items = log(number)
    kept = items[: data.draw(st.integers(0, number - 1))]
    assert verify(kept).whole, "a chain alone cannot tell what was cut off its end"
    assert verify(kept, head=items[-1]["hash"]).fault is Fault.OTHER_HEAD
    assert (verify(kept, count=number).fault, verify(kept, count=number).seq) == (Fault.CUT, len(kept) + 1)


def test_a_head_noted_earlier_is_still_in_a_log_that_grew() -> None:
    items = log(6)
    assert verify(items, head=items[2]["hash"]).whole
    assert verify(items, head=items[2]["hash"], count=3).whole
    assert verify(items, head=items[2]["hash"], count=4).fault is Fault.OTHER_HEAD


def test_who_writes_a_log_anew_is_found_by_the_head_and_stopped_by_the_key() -> None:
    forged = chain([entry(target="nothing")] * 6)
    assert verify(forged).whole
    assert verify(forged, head=log(6)[-1]["hash"]).fault is Fault.OTHER_HEAD
    assert (verify(forged, KEY).fault, verify(forged, KEY).seq) == (Fault.UNKEYED, 1)
    assert verify(chain([entry()], b"another key that is long enough"), KEY).fault is Fault.CHANGED
    assert verify(log(2, KEY)).fault is Fault.NO_KEY


def test_a_log_may_be_older_than_its_key() -> None:
    items = log(3)
    head = line_of(items[-1])
    for number in range(3, 5):
        head = line_after(head, entry(number), 2_000, KEY)
        items.append(line_item(head))
    assert verify(items, KEY).seq == 1
    assert verify(items, KEY, keyed_from=4).whole
    assert verify(items[:3], KEY, keyed_from=3).fault is Fault.UNKEYED
    verdict = verify(items, KEY, keyed_from=None)
    assert (verdict.whole, verdict.keyed_from, verdict.unkeyed) == (True, 4, 3)
    assert verify(items[:3], KEY, keyed_from=None).unkeyed == 3


def test_behind_a_keyed_line_every_one_must_be_keyed() -> None:
    """So a server whose key was taken away shows once it has it again."""
    items = log(3, KEY)
    items.append(line_item(line_after(line_of(items[-1]), entry(9), 2_000, None)))
    for keyed_from in (None, 1, 4, 9):
        verdict = verify(items, KEY, keyed_from=keyed_from)
        assert (verdict.fault, verdict.seq) == (Fault.UNKEYED, 4)
    assert verify(items, None, keyed_from=None).fault is Fault.NO_KEY


@given(st.integers(0, 6), st.integers(0, 6), st.sampled_from([None, KEY]))
def test_what_is_new_is_checked_as_the_whole_would_be(before: int, number: int, key: bytes | None) -> None:
    items = log(number, key)
    before = min(before, number)
    checked = verify(items[:before], key, keyed_from=None)
    assert verify(items[max(before - 1, 0) :], key, keyed_from=None, checked=checked) == verify(items, key)


@given(st.integers(1, 5), st.data(), st.sampled_from([None, KEY]))
def test_a_line_checked_before_that_is_another_now_shows(number: int, data: st.DataObject, key: bytes | None) -> None:
    items = log(number, key)
    checked = verify(items, key, keyed_from=None)
    cut = data.draw(st.integers(0, number - 1))
    grown = chain([*[entry(one) for one in range(cut)], *[entry(90 + one) for one in range(3 * number)]], key)
    verdict = verify(grown[number - 1 :], key, keyed_from=None, checked=checked)
    assert (verdict.fault, verdict.seq) == (Fault.OTHER_HEAD, number)
    assert verify([], key, keyed_from=None, checked=checked).fault is Fault.CUT


@pytest.mark.parametrize(
    "spoilt", [{}, {"seq": "1"}, {"seq": 2**70}, {"details": {"n": 2**70}}, {"more": 1}, {"outcome": "praised"}]
)
def test_what_is_no_line_is_told_as_such(spoilt: dict[str, Any]) -> None:
    item = {**log(1)[0], **spoilt} if spoilt else {"PK": "AUDIT", "SK": "x"}
    assert verify([item]).fault is Fault.UNREADABLE


def test_another_program_can_work_out_a_hash() -> None:
    line = line_of(chain([entry(details={"b": 2, "a": "é"})])[0])
    assert line is not None
    array = '["fan-identity audit 1",1,1000,"r0","service:a","flags.switch","scoreUsers","done",{"a":"é","b":2},"",'
    told = f'{array}"{START}",false]'.encode()
    assert canonical(line) == told
    assert line.hash == hashlib.sha256(told).hexdigest()
    keyed = line_after(None, entry(details={"b": 2, "a": "é"}), 1_000, KEY)
    assert keyed.hash == hmac.new(KEY, told.replace(b"false", b"true"), hashlib.sha256).hexdigest()


def test_a_person_is_named_by_a_hash_and_a_service_as_it_is_called() -> None:
    assert subject_of(Identity(CallerKind.API_KEY, "desk")) == "api_key:desk"
    person = subject_of(Identity(CallerKind.USER, "fan@example.com"))
    assert person.startswith("user:")
    assert "fan" not in person
    assert person == subject_of(Identity(CallerKind.USER, "fan@example.com", source_ip=("::1",)))


def test_unfinished_actions_are_those_without_an_end() -> None:
    told = [("a", "begun"), ("b", "begun"), ("a", "done"), ("c", "begun"), ("c", "unknown")]
    lines = [line_of(item) for item in chain([entry(reference=name, outcome=Outcome(how)) for name, how in told])]
    assert [line.reference for line in unfinished(line for line in lines if line is not None)] == ["b"]
