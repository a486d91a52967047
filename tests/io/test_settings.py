"""Settings: environment first, then flags; errors name the setting and never repeat a value."""

from datetime import timedelta

import pytest

from fan_identity.io.errors import UsageError
from fan_identity.io.settings import Settings, load_settings

SECRET = "hunter2-jane@example.org"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FAN_IDENTITY_{name.upper()}", raising=False)
    monkeypatch.delenv("APP_NAME", raising=False)


def test_nothing_set_means_these_defaults():
    made = load_settings().model_dump()
    set_ones = {name: value for name, value in made.items() if value is not None}
    assert set_ones == {
        "arai_max_age": timedelta(days=1),
        "flags_default": True,
        "metrics_host": "127.0.0.1",
        "probe_deadline": timedelta(seconds=3),
        "splits": 1,
        "internal_accounts": frozenset(),
        "batch_size": 500,
        "rescore_rate": 200,
        "cluster_prefix": "clusters/",
        "bot_or_not_prefix": "bot-or-not/",
        "s3_options": "",
        "max_bad": 0.01,
        "max_unknown": 0.2,
        "max_removed": 0.2,
        "max_arm_changes": 0.2,
        "visibility_timeout": timedelta(seconds=60),
        "log_level": "WARNING",
    }


def test_a_flag_overrides_the_environment_and_an_absent_flag_does_not(monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_STORE", "sqlite:///env.db")
    monkeypatch.setenv("FAN_IDENTITY_BATCH_SIZE", "7")
    settings = load_settings(store="sqlite:///flag.db", batch_size=None)
    assert settings.store == "sqlite:///flag.db"
    assert settings.batch_size == 7


def test_the_worker_is_named_as_the_lambda_reference_does(monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_APP_NAME", "not read")
    assert load_settings().app_name is None
    monkeypatch.setenv("APP_NAME", "scoreUsers")
    assert load_settings().app_name == "scoreUsers"


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30d", timedelta(days=30)),
        ("90s", timedelta(seconds=90)),
        ("90m", timedelta(minutes=90)),
        (" 2h ", timedelta(hours=2)),
    ],
)
def test_spans_of_time_are_a_number_and_a_unit(monkeypatch, text, span):
    monkeypatch.setenv("FAN_IDENTITY_HORIZON", text)
    monkeypatch.setenv("FAN_IDENTITY_VISIBILITY_TIMEOUT", text)
    settings = load_settings()
    assert settings.horizon == settings.visibility_timeout == span


@pytest.mark.parametrize("text", ["60", "-5m", "1.5h", "PT90S", "7 d", "9999999d", "5w", "", "d"])
def test_a_span_of_time_of_another_form_is_refused_with_the_remedy(monkeypatch, text):
    monkeypatch.setenv("FAN_IDENTITY_HORIZON", text)
    with pytest.raises(UsageError, match="setting horizon: write a number and a unit, such as 7d"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "accounts"),
    [("monitor", {"monitor"}), (" a , b,,c ", {"a", "b", "c"}), ("", set()), (",", set()), ('["a"]', {'["a"]'})],
)
def test_internal_accounts_are_listed_with_commas(monkeypatch, text, accounts):
    monkeypatch.setenv("FAN_IDENTITY_INTERNAL_ACCOUNTS", text)
    assert load_settings().internal_accounts == accounts


def test_internal_accounts_may_be_given_as_a_set():
    assert load_settings(internal_accounts=["a,b"]).internal_accounts == {"a,b"}


@pytest.mark.parametrize("level", ["debug", "INFO", "Warning", "error"])
def test_log_levels_in_any_case(level):
    assert load_settings(log_level=level).log_level == level


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", "0"),
        ("batch_size", "10001"),
        ("batch_size", SECRET),
        ("visibility_timeout", "0"),
        ("visibility_timeout", "-PT1S"),
        ("visibility_timeout", SECRET),
        ("horizon", SECRET),
        ("log_level", SECRET),
        ("log_level", "warnings"),
        ("log_level", "info\n"),
    ],
)
def test_a_wrong_value_is_told_by_its_setting_alone(monkeypatch, name, value):
    monkeypatch.setenv(f"FAN_IDENTITY_{name.upper()}", value)
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert f"setting {name}: " in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__, "a traceback would show the value"


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(UsageError, match=r"batch_size.*log_level"):
        load_settings(batch_size=0, log_level="loud")


def test_an_unknown_flag_is_refused():
    with pytest.raises(UsageError, match="setting stoer: Extra inputs are not permitted"):
        load_settings(stoer=SECRET)


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().store = "x"
