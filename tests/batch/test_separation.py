import random
from itertools import pairwise

import pytest

from fan_identity.batch.separation import read_labels, separate
from fan_identity.batch.simulate import SaleSettings, write_simulation
from fan_identity.batch.summary import Summary
from fan_identity.io.errors import UsageError


def summary_of(scores):
    latest = {user: {"globalUserId": user, "accountScore": score, "armRisk": 3} for user, score in scores.items()}
    return Summary(latest, {})


def test_a_perfect_ranking():
    found = separate(
        summary_of({"f1": 90.0, "f2": 80.0, "b1": 10.0, "b2": 20.0}),
        {"f1": "fan", "f2": "fan", "b1": "searcher", "b2": "prober"},
    )
    assert (found.users, found.bots, found.unscored) == (4, 2, 0)
    assert found.roc_auc == 1.0
    assert found.precision_at_1_percent == 1.0
    assert found.auc_by_kind == {"prober": 1.0, "searcher": 1.0}
    assert found.bots_by_kind == {"prober": 1, "searcher": 1}
    assert found.is_bot == {"f1": False, "f2": False, "b1": True, "b2": True}


def test_a_kind_is_held_against_all_fans_and_the_hardest_comes_first():
    found = separate(
        summary_of({"f1": 90.0, "f2": 50.0, "easy": 10.0, "hard": 70.0}),
        {"f1": "fan", "f2": "fan", "easy": "searcher", "hard": "stealth"},
    )
    assert list(found.auc_by_kind.items()) == [("stealth", 0.5), ("searcher", 1.0)]
    assert found.roc_auc == 0.75


def test_users_without_a_label_or_without_a_score_do_not_count():
    found = separate(
        summary_of({"f": 90.0, "b": 10.0, "stranger": 0.0}),
        {"f": "fan", "b": "prober", "never-seen": "prober"},
    )
    assert (found.users, found.bots, found.unscored) == (2, 1, 1)
    assert found.precision_at_1_percent == 1.0


@pytest.mark.parametrize(("kind", "missing"), [("fan", "bot"), ("prober", "fan")])
def test_one_side_alone_cannot_be_told_apart(kind, missing):
    with pytest.raises(UsageError, match=f"no {missing} has a score"):
        separate(summary_of({"u": 50.0}), {"u": kind})


def test_the_curve_is_short_monotone_and_has_the_area_of_the_auc():
    rng = random.Random(5)
    scores = {f"f{n}": rng.gauss(70, 12) for n in range(5_000)} | {f"b{n}": rng.gauss(50, 12) for n in range(900)}
    found = separate(summary_of(scores), {user: "fan" if user[0] == "f" else "prober" for user in scores})
    curve = found.roc_curve
    assert len(curve) <= 200
    assert curve[0] == (0.0, 0.0)
    assert curve[-1] == (1.0, 1.0)
    steps = list(pairwise(curve))
    assert all(x0 <= x1 and y0 <= y1 for (x0, y0), (x1, y1) in steps)
    area = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in steps)
    assert area == pytest.approx(found.roc_auc, abs=0.002)


def test_equal_scores_are_one_threshold():
    found = separate(
        summary_of({"f1": 50.0, "f2": 50.0, "b1": 50.0, "b2": 50.0}),
        {"f1": "fan", "f2": "fan", "b1": "prober", "b2": "prober"},
    )
    assert found.roc_curve == [(0.0, 0.0), (1.0, 1.0)]
    assert found.roc_auc == 0.5


def test_labels_are_read_as_the_simulator_writes_them(tmp_path):
    written = write_simulation(SaleSettings(fans=5, bots=2, seed=1), tmp_path / "sale.jsonl")
    kinds = read_labels(written.labels_path)
    assert sum(kind == "fan" for kind in kinds.values()) == 5
    assert len(kinds) == 7


@pytest.mark.parametrize(
    "line", [b"[]", b'{"kind":"fan"}', b'{"globalUserId":7,"kind":"fan"}', b"\xff", b"[" * 100_000]
)
def test_a_line_that_is_no_label_is_named(tmp_path, line):
    path = tmp_path / "labels.jsonl"
    path.write_bytes(b'{"globalUserId":"u","kind":"fan"}\n' + line + b"\n")
    with pytest.raises(UsageError, match=r"labels\.jsonl, line 2"):
        read_labels(path)


def test_a_missing_labels_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no such file: .*none"):
        read_labels(tmp_path / "none.jsonl")
