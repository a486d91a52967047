"""The token in an Authorization header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.serving.tokens.bearer import bearer_token


@pytest.mark.parametrize("header", ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c", " Bearer a.b.c ", "a.b.c"])
def test_a_token(header):
    assert bearer_token(header) == "a.b.c"


@pytest.mark.parametrize(
    "header",
    [None, "", " ", "Bearer", "bearer ", "Basic Zm9v", "Bearer a b", "Bearer a,Bearer b", "a b"],
)
def test_no_token(header):
    assert bearer_token(header) is None


@given(st.text(max_size=30))
def test_a_token_is_a_word_of_the_header(header):
    token = bearer_token(header)
    if token is not None:
        assert token and " " not in token
        assert header.strip(" ").endswith(token)
        assert bearer_token(f"Bearer {token}") == token
