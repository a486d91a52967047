"""DynamoDB's typed JSON and the plain JSON it stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.activity import MalformedRecordError
from fan_identity.domain.typed_json import plain

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def typed(value):
    """As DynamoDB writes a value, written here from its documentation."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": repr(value)}
        case str():
            return {"S": value}
        case list():
            return {"L": [typed(inner) for inner in value]}
        case _:
            return {"M": {name: typed(inner) for name, inner in value.items()}}


@given(st.dictionaries(st.text(), values, max_size=4))
def test_what_is_typed_is_read_back(item):
    assert plain({name: typed(value) for name, value in item.items()}) == item


def test_sets_become_lists_and_binary_stays_text():
    image = {"a": {"SS": ["x", "y"]}, "b": {"NS": ["1", "2.5"]}, "c": {"B": "AAE="}, "d": {"BS": ["AA=="]}}
    assert plain(image) == {"a": ["x", "y"], "b": [1, 2.5], "c": "AAE=", "d": ["AA=="]}


def nested(depth):
    value = {"S": "x"}
    for _ in range(depth):
        value = {"L": [value]}
    return value


@pytest.mark.parametrize(
    "value",
    [
        "x",
        {},
        {"S": 1},
        {"S": "a", "N": "1"},
        {"N": "ten"},
        {"N": "NaN"},
        {"N": "Infinity"},
        {"BOOL": "true"},
        {"M": []},
        {"X": "y"},
        nested(50),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_not_typed_json_is_malformed(value):
    with pytest.raises(MalformedRecordError):
        plain({"a": value})


def test_thirty_two_levels_are_read():
    assert plain({"a": nested(32)})
