import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.domain.imports import ImportKind
from fan_identity.domain.measures import DEAD_LETTERS, MEASURES, OTHER, PARTS, REJECTIONS, SECONDS, TABLES, WORKERS
from fan_identity.domain.scorable import Rejection
from fan_identity.io import probes
from fan_identity.io.registry import WORKERS as REGISTERED
from fan_identity.io.settings import Settings
from fan_identity.serving import liveness

LABELS = list({label for measure in MEASURES for label in measure.labels})


def test_every_worker_of_the_registry_is_listed():
    assert set(REGISTERED) | {kind.worker for kind in ImportKind} <= set(WORKERS)


def test_every_rejection_of_the_rules_is_listed():
    assert {reason.value for reason in Rejection} < set(REJECTIONS)


def test_workers_queues_and_tables_are_listed_by_their_settings():
    labels = {label.name: label.values for label in LABELS}
    assert {worker.queue_setting for worker in REGISTERED.values()} <= set(labels["queue"])
    assert {worker.table_setting for worker in REGISTERED.values()} <= set(TABLES)
    assert set(labels["queue"]) <= set(Settings.model_fields)


def test_every_part_that_is_probed_is_listed():
    probed = {*probes.STORES, *probes.SERVICES, *probes.MODELS, *liveness.TABLES, *liveness.UPSTREAMS}
    assert probed | {"flags", "events", "token_jwks"} <= set(PARTS)


def test_names_are_one_metrics_each_and_as_prometheus_wants_them():
    names = [measure.prometheus_name for measure in MEASURES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"fan_identity(_[a-z]+)+", name) for name in names)


def test_labels_are_few_so_that_series_are():
    assert all(len(label.values) == len(set(label.values)) <= 40 for label in LABELS)
    assert all(re.fullmatch(r"[A-Za-z_]+", value) for label in LABELS for value in label.values)


def test_buckets_ascend():
    assert list(SECONDS) == sorted(set(SECONDS))


@given(st.sampled_from(LABELS), st.text())
def test_whatever_is_no_listed_value_is_other(label, text):
    assert label.listed(text) in {*label.values, OTHER}
    assert label.listed(text) == text or text not in label.values


@pytest.mark.parametrize("reason", ["malformed", "too_many_receives", "model_unavailable"])
def test_reasons_of_dead_letters_are_told_as_they_are(reason):
    assert reason in DEAD_LETTERS


def test_a_measure_wants_all_its_labels():
    measure = next(measure for measure in MEASURES if len(measure.labels) == 2)
    with pytest.raises(ValueError, match="shorter"):
        measure.listed(["one"])


def test_the_docs_tell_of_every_metric():
    rows = [
        f"| `{measure.prometheus_name}` | {measure.kind.value} | "
        f"{', '.join(f'`{label.name}`' for label in measure.labels) or '–'} | {measure.help} |"  # noqa: RUF001
        for measure in MEASURES
    ]
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert re.findall(r"^\| `fan_identity_.*\|$", page, re.MULTILINE) == rows
