import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fan_identity.domain.metrics import precision_at, roc_auc

# Few distinct scores, so that ties are frequent.
scores = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
labelled = st.lists(st.tuples(st.booleans(), scores), min_size=2, max_size=60)


@given(labelled)
def test_auc_is_sklearns(pairs):
    labels, given_scores = [label for label, _ in pairs], [score for _, score in pairs]
    if len(set(labels)) < 2:
        with pytest.raises(ValueError, match="bots and fans"):
            roc_auc(labels, given_scores)
        return
    assert roc_auc(labels, given_scores) == pytest.approx(roc_auc_score(labels, given_scores), abs=1e-12)


@given(labelled)
def test_auc_of_negated_scores_is_the_complement(pairs):
    labels, given_scores = [label for label, _ in pairs], [score for _, score in pairs]
    if len(set(labels)) == 2:
        assert roc_auc(labels, [-score for score in given_scores]) == pytest.approx(1 - roc_auc(labels, given_scores))


def test_auc_extremes():
    assert roc_auc([True, True, False], [3, 2, 1]) == 1
    assert roc_auc([False, False, True], [3, 2, 1]) == 0
    assert roc_auc([True, False, True, False], [7, 7, 7, 7]) == 0.5
    assert roc_auc([True, False], [float("inf"), 1e308]) == 1


@pytest.mark.parametrize("measure", [roc_auc, lambda labels, scores: precision_at(labels, scores, 0.5)])
def test_bad_input_is_refused(measure):
    with pytest.raises(ValueError, match="NaN"):
        measure([True, False], [float("nan"), 1.0])
    with pytest.raises(ValueError, match="2 labels but 1 scores"):
        measure([True, False], [1.0])


def test_precision_examples():
    labels = [True, False, True, False]
    assert precision_at(labels, [4, 3, 2, 1], 0.25) == 1
    assert precision_at(labels, [4, 3, 2, 1], 0.5) == 0.5
    assert precision_at(labels, [4, 3, 2, 1], 0.75) == pytest.approx(2 / 3)
    assert precision_at(labels, [4, 3, 2, 1], 0.001) == 1, "at least one is looked at"
    assert precision_at([True] * 7 + [False] * 93, list(range(100, 0, -1)), 0.07) == 1
    with pytest.raises(ValueError, match="share"):
        precision_at(labels, [4, 3, 2, 1], 0)
    with pytest.raises(ValueError, match="at least one"):
        precision_at([], [], 0.5)


@given(labelled, st.floats(0.01, 1), st.randoms())
def test_precision_does_not_depend_on_the_order(pairs, share, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    results = [precision_at([label for label, _ in p], [score for _, score in p], share) for p in (pairs, shuffled)]
    assert results[0] == pytest.approx(results[1])
    assert 0 <= results[0] <= 1


@given(labelled)
def test_precision_at_everyone_is_the_share_of_bots(pairs):
    labels = [label for label, _ in pairs]
    assert precision_at(labels, [score for _, score in pairs], 1) == pytest.approx(sum(labels) / len(labels))
