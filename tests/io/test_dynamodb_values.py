"""DynamoDB's typed attributes: what is written comes back equal; what cannot be held is refused, its value untold."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fan_identity.io.dynamodb.values import (
    MAX_DEPTH,
    ItemTooLargeError,
    UnsupportedItemError,
    attribute_of,
    attributes_of,
    item_of,
    key_problem,
    size_of,
    value_of,
)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)
whole = st.integers(-(10**38) + 1, 10**38 - 1)
sizes = st.just(0.0) | st.floats(1e-130, 1e6) | st.floats(1e-130, math.nextafter(1e126, 0))
fractions = sizes | sizes.map(lambda x: -x)
scalars = st.none() | st.booleans() | whole | fractions | st.text(st.characters(codec="utf-8")) | st.binary(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


def as_stored(attribute: Any) -> Any:
    """As DynamoDB answers: numbers without exponent, trailing zeros or a negative zero."""
    ((kind, value),) = attribute.items()
    if kind == "N":
        assert len(Decimal(value).normalize().as_tuple().digits) <= 38
        text = format(Decimal(value), "f")
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return {"N": "0" if text == "-0" else text}
    if kind == "L":
        return {"L": [as_stored(inner) for inner in value]}
    if kind == "M":
        return {"M": {name: as_stored(inner) for name, inner in value.items()}}
    return attribute


def same_types(one: Any, other: Any) -> bool:
    """Whether two equal values have equal types, but for whole floats, which come back as ints."""
    if isinstance(one, float) and one.is_integer() and abs(one) < 10**38:
        return type(other) is int
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return all(same_types(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict):
        return all(same_types(inner, other[name]) for name, inner in one.items())
    return True


@given(st.dictionaries(names, values, max_size=5))
@example({"a": 1e23, "b": 1e40, "c": -0.0, "d": 5.0, "e": 0.1, "f": math.nextafter(1e126, 0), "g": 1e-130})
@example({"a": True, "b": 1, "c": 0, "d": False, "e": 10**38 - 1, "f": float(10**37), "g": 2**53 + 1})
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_item_comes_back_equal_and_of_the_same_types(item: dict[str, Any]) -> None:
    back = item_of({name: as_stored(attribute) for name, attribute in attributes_of(item).items()})
    assert back == item
    assert all(same_types(value, back[name]) for name, value in item.items())


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("5.0", 5), ("1E+2", 100), ("1E+20", 10**20), ("12345678901234567890123", 12345678901234567890123)],
)
def test_whole_numbers_are_ints_however_a_server_writes_them(text: str, value: int) -> None:
    back = value_of({"N": text})
    assert (back, type(back)) == (value, int)


def test_tuples_are_lists_and_sets_of_others_become_sorted_lists() -> None:
    assert value_of(attribute_of((1, "a"))) == [1, "a"]
    assert item_of({"s": {"SS": ["b", "a"]}, "n": {"NS": ["2", "1.5"]}, "b": {"BS": [b"2", b"1"]}}) == {
        "s": ["a", "b"],
        "n": [1.5, 2],
        "b": [b"1", b"2"],
    }


def nested(depth: int) -> Any:
    value: Any = "x"
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


SECRET = "secret"


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        10**38,
        -(10**38),
        10**5_000,
        1e126,
        1e-131,
        5e-324,
        f"{SECRET}\ud800",
        {"": SECRET},
        {1: SECRET},
        {f"{SECRET}\udfff": 1},
        {SECRET},
        object(),
        1j,
        Decimal(1),
        nested(MAX_DEPTH + 1),
        nested(100_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_dynamodb_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(UnsupportedItemError) as refused:
        attributes_of({"PK": "a", "v": value})
    assert SECRET not in str(refused.value)
    assert refused.value.reason == "unsupported"


def test_so_many_containers_may_nest() -> None:
    item = {"v": nested(MAX_DEPTH)}
    assert item_of(attributes_of(item)) == item


def test_a_too_large_item_has_a_reason_of_its_own() -> None:
    assert ItemTooLargeError("x").reason == "too_large"


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({}, 0),
        ({"a": ""}, 1),
        ({"é": "éé"}, 6),
        ({"a": b"123"}, 4),
        ({"a": None, "b": True}, 4),
        ({"a": 12}, 1 + 2),
        ({"a": []}, 4),
        ({"a": ["b", "c"]}, 1 + 3 + 2 + 2),
        ({"a": {"k": "v"}}, 1 + 3 + 1 + 2),
    ],
)
def test_sizes_are_counted_as_dynamodb_counts_or_below(item: dict[str, Any], size: int) -> None:
    assert size_of(attributes_of(item)) == size


@pytest.mark.parametrize(
    ("pk", "sk", "problem"),
    [
        ("a", "b", None),
        ("p" * 2_048, "s" * 1_024, None),
        ("#\0é\U0001f600", "LATEST", None),
        ("", "b", "PK is empty"),
        ("a", "", "SK is empty"),
        ("é" * 1_025, "b", "PK is over 2,048 bytes"),
        ("a", "s" * 1_025, "SK is over 1,024 bytes"),
        (None, "b", "PK is no text"),
        ("a", 1, "SK is no text"),
        ("\ud800", "b", "PK holds a lone surrogate"),
    ],
)
def test_keys_are_checked(pk: Any, sk: Any, problem: str | None) -> None:
    assert key_problem(pk, sk) == problem
