"""Parts by their settings, asked side by side, whatever hangs."""

import threading
import time
from pathlib import Path

import pytest

from fan_identity.domain.measures import PARTS
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.probes import Part, Prober, bare_address, named_parts, parts_of
from fan_identity.io.settings import load_settings
from fan_identity.io.sqlite.store import SqliteStore
from fan_identity.serving.liveness import TABLES, UPSTREAMS, all_parts
from fan_identity.serving.settings import load_serving_settings

from ..webhook import Receiver

ENOUGH = 30.0


@pytest.fixture(autouse=True)
def _region(made_up_aws_credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


def part(name: str, ask) -> Part:
    return Part(name, f"test://{name}", ask, (name,))


def round_of(settings, seconds: float = ENOUGH):
    return {one.part: one for one in Prober(parts_of(settings), seconds).round()}


def test_a_part_is_a_thing_that_can_be_down_whatever_names_it(tmp_path):
    store = f"sqlite:///{tmp_path}/fans.db"
    found = parts_of(
        load_settings(
            store=store,
            queue=f"{store}?queue=other",
            table="dynamodb://fans",
            dead_letters="dynamodb://fans",
            operations="dynamodb://fans?region=us-east-1",
            source="file:///activities.jsonl",
        )
    )
    assert [(one.name, one.settings) for one in found] == [
        ("store", ("store", "queue")),
        ("table", ("table", "dead_letters")),
        ("operations", ("operations",)),
    ]


def test_addresses_are_shown_without_options_and_credentials():
    assert bare_address("redis://fan:secret@cache:6379/0?ca=/x") == "redis://cache:6379/0"
    assert bare_address("dynamodb://fans?region=eu-west-1") == "dynamodb://fans"
    (cache,) = parts_of(load_settings(cache="redis://fan:secret@cache:6379/0"))
    assert "secret" not in repr(cache)


@pytest.mark.parametrize(
    ("setting", "address", "problem"),
    [
        ("table", "redis://host/0", "--table: redis:// is not supported here; use sqlite://… or dynamodb://…"),
        ("cache", "dynamodb://fans", "--cache: dynamodb:// is not supported here"),
        ("on_demand_queue", "sqs://q?wat=1", "--on-demand-queue: sqs:// has no option 'wat'"),
        ("source", "kafka://host:9092", "--source: no topic's name"),
        ("source", "s3://bucket/x", "--source: s3:// is not supported here"),
        ("model", "https://host/score?health=nowhere", "--model: option health is a path on that host"),
        ("accounts", "https://user:pw@host", "--accounts: no credentials in an address"),
        ("store", "fans.db", "--store: not an address"),
        ("flags", "https://host/api", "--flags: write unleash+https://host/api"),
    ],
)
def test_a_wrong_address_is_said_under_its_setting_before_anything_is_asked(setting, address, problem):
    with pytest.raises(UsageError) as raised:
        parts_of(load_settings(**{setting: address}))
    assert str(raised.value).startswith(problem)


def test_nothing_to_probe_is_a_wrong_setting():
    with pytest.raises(UsageError, match="no part has an address"):
        all_parts(load_serving_settings())


def test_every_part_that_can_be_named_has_a_label_of_its_own_in_the_metrics(monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_UNLEASH_TOKEN", "default:development.x")
    names = [*load_settings().__class__.model_fields]
    tables = (
        "table",
        "staging_table",
        "verification_table",
        "dead_letters",
        "operations",
        "arai",
        "positions",
        *TABLES,
    )
    queues = [name for name in names if name.endswith("queue")]
    services = ("accounts", "identity", "model", "staging_model", *UPSTREAMS)
    settings = load_serving_settings(
        store="sqlite:///x.db",
        cache="redis://host/0",
        source="dynamodb-streams://fans?region=eu-west-1",
        flags="unleash+https://host/api",
        events="eventbridge://bus?region=eu-west-1",
        token_issuer="https://issuer",
        token_audience="fans",
        **{name: f"dynamodb://{name}" for name in tables},
        **{name: f"sqs://{name}" for name in queues},
        **{name: f"https://{name.replace('_', '-')}.example.com" for name in services},
    )
    found = [one.name for one in all_parts(settings)]
    assert len(found) == len(set(found)) == 1 + len(tables) + len(queues) + len(services) + 5
    assert set(found) <= set(PARTS)


def test_who_hangs_is_down_and_delays_nobody():
    ended = threading.Event()

    def hang(seconds: float) -> None:
        del seconds
        ended.wait(60)

    prober = Prober([part(f"hangs{number}", hang) for number in range(20)] + [part("fine", lambda seconds: None)], 1.0)
    began = time.monotonic()
    found = prober.round()
    took = time.monotonic() - began
    ended.set()
    assert took < 30, "a round waited for those that hang for a minute"
    assert [one.up for one in found] == [False] * 20 + [True]
    assert found[0].problem == "no answer in 1 s"


def test_one_that_hangs_for_ever_is_not_asked_by_ever_more_threads(until):
    ended, asked = threading.Event(), list[float]()

    def hang(seconds: float) -> None:
        asked.append(seconds)
        ended.wait(60)

    prober = Prober([part("hangs", hang)], 0.05)
    problems = [prober.round()[0].problem for _ in range(6)]
    until(lambda: len(asked) == 4, "four threads ask")
    assert problems[4:] == ["no answer; 4 earlier probes still wait for one"] * 2
    ended.set()
    until(lambda: prober.round()[0].up, "it is asked again once the earlier ones ended")


def test_what_fails_at_first_is_asked_again_within_the_deadline():
    answers = iter([BackendUnavailableError("reset"), None])

    def flaky(seconds: float) -> None:
        if (error := next(answers)) is not None:
            raise error

    assert Prober([part("flaky", flaky)], ENOUGH).round()[0].up


def test_what_does_not_mend_by_asking_again_is_asked_once():
    asked: list[float] = []

    def missing(seconds: float) -> None:
        asked.append(seconds)
        raise UsageError("--table: dynamodb://fans does not exist")

    (found,) = Prober([part("table", missing)], ENOUGH).round()
    assert (found.up, found.problem, len(asked)) == (False, "--table: dynamodb://fans does not exist", 1)


def test_the_text_of_an_error_that_is_not_ours_is_not_shown():
    def broken(seconds: float) -> None:
        raise RuntimeError("token=secret")

    (found,) = Prober([part("model", broken)], 1.0).round()
    assert found.problem == "the probe failed (RuntimeError)"


@pytest.mark.parametrize(
    ("mood", "health", "up"),
    [
        ("ok", "", True),
        ("404", "", True),
        ("405", "", True),
        ("401", "", True),
        ("429", "", False),
        ("503", "", False),
        ("reset", "", False),
        ("ok", "?health=/health", True),
        ("404", "?health=/health", False),
        ("401", "?health=/health", False),
        ("hang", "", False),
        ("drip", "?health=/health", False),
    ],
)
def test_a_service_is_up_where_it_answers_and_healthy_where_it_says_so(mood, health, up):
    with Receiver(mood) as receiver:
        address = f"http://127.0.0.1:{receiver.port}/score{health}"
        found = round_of(load_settings(model=address), 30.0 if up else 1.0)["model"]
    assert found.up == up, found
    if not up:
        assert found.problem.startswith((f"--model: http://127.0.0.1:{receiver.port}/score ", "no answer in 1 s"))


def test_a_service_gets_its_token_and_nobody_sees_it(monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_ACCOUNTS_TOKEN", "t0ken")
    with Receiver("503") as receiver:
        found = round_of(load_settings(accounts=f"http://127.0.0.1:{receiver.port}"), 1.0)["accounts"]
        receiver.wait_for(len, "it was never asked")
        assert receiver.requests[0].headers["authorization"] == "Bearer t0ken"
    assert "t0ken" not in found.problem


def test_a_flag_server_has_to_take_the_token(monkeypatch):
    monkeypatch.setenv("FAN_IDENTITY_UNLEASH_TOKEN", "default:development.x")
    with Receiver() as receiver:
        settings = load_settings(flags=f"unleash+http://127.0.0.1:{receiver.port}/api")
        assert round_of(settings)["flags"].up
        receiver.mood = "401"
        refused = round_of(settings)["flags"]
    assert "refuses the token of FAN_IDENTITY_UNLEASH_TOKEN (401)" in refused.problem
    assert "development.x" not in refused.problem


def test_a_store_is_opened_and_never_made(tmp_path: Path):
    settings = load_settings(store=f"sqlite:///{tmp_path}/fans.db")
    missing = round_of(settings)["store"]
    assert not missing.up and "does not exist" in missing.problem
    assert list(tmp_path.iterdir()) == []
    SqliteStore(tmp_path / "fans.db").connection.close()
    assert round_of(settings)["store"].up
    (tmp_path / "fans.db").write_bytes(b"this is no SQLite file" * 100)
    assert "not an SQLite file" in round_of(settings)["store"].problem


def test_a_model_file_is_read_each_time(tmp_path: Path):
    packaged = Path(__file__).parents[2] / "io" / "scorecard.json"
    model = tmp_path / "scorecard.json"
    model.write_bytes(packaged.read_bytes())
    settings = load_settings(model=f"file://{model}")
    assert round_of(settings)["model"].up
    model.unlink()
    assert "cannot be read" in round_of(settings)["model"].problem


def test_the_packaged_model_is_no_part():
    assert named_parts(load_settings(table="dynamodb://fans?region=eu-west-1")).parts[0].name == "table"
    assert [one.name for one in parts_of(load_settings(cache="redis://h/0"))] == ["cache"]
