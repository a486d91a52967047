import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.fanscore import DEFAULT_BOOSTS, Boosts, fan_score

hundredths = st.integers(-10_000, 20_000).map(lambda number: number / 100)


def test_the_references_example():
    assert fan_score(75, DEFAULT_BOOSTS.of_arm(1), DEFAULT_BOOSTS.of_event("high"), DEFAULT_BOOSTS.of_model(0.02)) == 87


def test_no_noise_of_binary_fractions():
    assert fan_score(56.76, -25, -10, 0) == 21.76


@given(hundredths, hundredths, hundredths, hundredths)
def test_the_sum_in_hundredths_kept_between_0_and_100(raw, arm, event, model):
    exact = sum(round(part * 100) for part in (raw, arm, event, model))
    assert fan_score(raw, arm, event, model) == min(max(exact, 0), 10_000) / 100


@pytest.mark.parametrize(
    "boosts", [{"arm": {1: math.nan}}, {"event": {"low": math.inf}}, {"model": ((0.5, 1.0), (0.5, 2.0))}]
)
def test_boosts_that_are_none(boosts):
    with pytest.raises(ValueError):
        Boosts(**boosts)


def test_what_is_unknown_is_worth_nothing():
    assert (DEFAULT_BOOSTS.of_arm(None), DEFAULT_BOOSTS.of_event("odd"), DEFAULT_BOOSTS.of_model(None)) == (0, 0, 0)
    assert Boosts(model=()).of_model(0.5) == 0
