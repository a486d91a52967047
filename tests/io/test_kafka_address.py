"""Addresses of Kafka topics: what is taken, what is refused and how, and that no secret travels in one."""

import pickle
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fan_identity.io.addresses import Address, parse_address
from fan_identity.io.errors import UsageError
from fan_identity.io.kafka import KafkaPositions, KafkaStream
from fan_identity.io.kafka_address import (
    MAX_OFFSET,
    KafkaSettings,
    client_properties,
    kafka_settings,
    offset_of,
    partition_of,
    source_of,
)


def settings_of(text: str) -> KafkaSettings:
    return kafka_settings(parse_address(text, "source"), "source", "enqueueFromStream")


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD", "SSL_KEY_PASSWORD", "SSL_KEYSTORE_PASSWORD", "OAUTH_CLIENT_SECRET"):
        monkeypatch.delenv(f"FAN_IDENTITY_KAFKA_{name}", raising=False)


def test_an_address_alone_means_the_workers_group_from_the_earliest_record() -> None:
    assert settings_of("kafka://localhost:9092/user-activities") == KafkaSettings(
        setting="source", brokers="localhost:9092", topic="user-activities", group="enqueueFromStream"
    )


def test_every_option() -> None:
    settings = settings_of(
        "KAFKA://a:9092,b.example.com,[::1]:9094/t.x_y?group=fraud&start_time=2026-11-27T10:00:00Z"
        "&end_time=2026-11-28&discover_seconds=30&unreachable_seconds=7&kafka.security.protocol=SASL_SSL"
        "&kafka.client.rack=use1-az1"
    )
    assert settings == KafkaSettings(
        setting="source",
        brokers="a:9092,b.example.com,[::1]:9094",
        topic="t.x_y",
        group="fraud",
        start_time_ms=1_795_773_600_000,
        end_time_ms=1_795_824_000_000,
        discover_seconds=30,
        unreachable_seconds=7,
        properties=(("client.rack", "use1-az1"), ("security.protocol", "SASL_SSL")),
    )
    assert settings.name == "kafka://a:9092,b.example.com,[::1]:9094/t.x_y"
    assert settings.has_start
    assert settings.has_end


_host = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z0-9]{1,8}){0,2}", fullmatch=True)
_broker = st.one_of(_host, st.builds("{}:{}".format, _host, st.integers(1, 65_535)))
_topic = st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True).filter(lambda name: name not in {".", ".."})
_options = st.fixed_dictionaries(
    {},
    optional={
        "group": st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20),
        "start_offset": st.integers(0, 1_000).map(str),
        "end_offset": st.integers(1_000, MAX_OFFSET).map(str),
        "discover_seconds": st.integers(1, 10**6).map(str),
        "kafka.client.rack": st.text(min_size=1, max_size=10),
    },
)


@given(st.lists(_broker, min_size=1, max_size=3), _topic, _options)
def test_what_is_written_is_what_is_read(brokers: list[str], topic: str, options: dict[str, str]) -> None:
    query = f"?{urlencode(options)}" if options else ""
    settings = settings_of(f"kafka://{','.join(brokers)}/{topic}{query}")
    assert (settings.brokers, settings.topic) == (",".join(brokers), topic)
    assert settings.group == options.get("group", "enqueueFromStream")
    assert settings.start_offset == (int(options["start_offset"]) if "start_offset" in options else None)
    assert settings.end_offset == (int(options["end_offset"]) if "end_offset" in options else None)
    assert dict(settings.properties).get("client.rack") == options.get("kafka.client.rack")


@given(st.text(max_size=40), st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3))
def test_any_text_is_an_address_or_one_line_that_names_the_setting(target: str, options: dict[str, str]) -> None:
    try:
        settings = kafka_settings(Address("kafka", target, options), "source", "w")
    except UsageError as error:
        text = str(error)
        assert text.startswith("--source: ")
        assert len(text.splitlines()) == 1
    else:
        assert f"{settings.brokers}/{settings.topic}" == target
        assert not settings.topic.count("/")


@given(st.text(max_size=30), st.integers(0, 10**6))
def test_a_partition_is_named_and_found_again(target: str, partition: int) -> None:
    address = Address("kafka", f"{target}/topic", {"group": "g#1"})
    source = source_of(address, str(partition))
    assert source == f"kafka://{target}/topic#{partition}"
    assert partition_of(source) == ("topic", partition)


@pytest.mark.parametrize("source", ["", "kafka://a/t", "kafka://a/t#", "kafka://a/t#x", "kafka://a/t#²", "sqs://a/t#1"])
def test_other_names_are_no_partitions(source: str) -> None:
    with pytest.raises(ValueError, match="not a partition"):
        partition_of(source)


@given(st.text(max_size=25))
def test_a_position_is_an_offset_or_refused(text: str) -> None:
    try:
        offset = offset_of(text, "source")
    except UsageError:
        assert not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > MAX_OFFSET
    else:
        assert 0 <= offset <= MAX_OFFSET
        assert str(offset) == text.lstrip("0") or offset == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafka://", "Kafka's brokers are written kafka://host:9092/topic"),
        ("kafka:///t", "Kafka's brokers are written"),
        ("kafka://a:0/t", "Kafka's brokers are written"),
        ("kafka://a:65536/t", "Kafka's brokers are written"),
        ("kafka://a:9092,/t", "Kafka's brokers are written"),
        ("kafka://a b/t", "Kafka's brokers are written"),
        ("kafka://a:9092", "no topic's name follows"),
        ("kafka://a:9092/", "no topic's name follows"),
        ("kafka://a:9092/t/u", "no topic's name follows"),
        ("kafka://a:9092/..", "no topic's name follows"),
        ("kafka://a:9092/" + "t" * 250, "no topic's name follows"),
        ("kafka://a/t?offset=3", "kafka:// has no option 'offset'; there are: discover_seconds, end_offset"),
        ("kafka://a/t?start=now", "start is earliest or latest; a time is start_time"),
        ("kafka://a/t?start=latest&start_offset=1", "options start and start_offset contradict each other"),
        ("kafka://a/t?start_time=2026-01-01&start_offset=1", "start_time and start_offset contradict each other"),
        ("kafka://a/t?end_time=2026-01-01&end_offset=1", "end_time and end_offset contradict each other"),
        ("kafka://a/t?start_offset=-1", "start_offset is a whole number"),
        (f"kafka://a/t?start_offset={MAX_OFFSET + 1}", "start_offset is greater than any offset"),
        ("kafka://a/t?start_offset=5&end_offset=4", "end_offset lies before start_offset"),
        ("kafka://a/t?start_time=2026-01-02&end_time=2026-01-01", "end_time lies before start_time"),
        ("kafka://a/t?start_time=yesterday", "start_time is a time such as"),
        ("kafka://a/t?discover_seconds=0", "discover_seconds is a whole number of at least 1"),
        ("kafka://a/t?group=a%00b", "group is the name of a consumer group"),
        ("kafka://a/t?kafka.group.id=g", "kafka.group.id is not free: reading depends on it; use group="),
        ("kafka://a/t?kafka.auto.offset.reset=latest", "kafka.auto.offset.reset is not free.*; use start="),
        ("kafka://a/t?kafka.enable.auto.commit=true", "kafka.enable.auto.commit is not free"),
        ("kafka://a/t?kafka.enable.auto.offset.store=true", "kafka.enable.auto.offset.store is not free"),
        ("kafka://a/t?kafka.bootstrap.servers=b", "kafka.bootstrap.servers is not free"),
        ("kafka://a/t?kafka.error_cb=x", "names no property of librdkafka"),
        ("kafka://a/t?kafka.=x", "names no property of librdkafka"),
        ("kafka://a/t?kafka.sasl.password=hunter2", "set FAN_IDENTITY_KAFKA_PASSWORD in the environment"),
        ("kafka://a/t?kafka.sasl.username=hunter2", "set FAN_IDENTITY_KAFKA_USERNAME in the environment"),
        ("kafka://a/t?kafka.ssl.key.password=hunter2", "set FAN_IDENTITY_KAFKA_SSL_KEY_PASSWORD in the environment"),
        ("kafka://a/t?kafka.ssl.key.pem=hunter2", "keep it in a file"),
        ("kafka://me:hunter2@a:9092/t", "set FAN_IDENTITY_KAFKA_USERNAME and FAN_IDENTITY_KAFKA_PASSWORD"),
    ],
)
def test_what_is_refused_and_what_to_do(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as told:
        settings_of(text)
    assert str(told.value).startswith("--source: ")
    assert "hunter2" not in str(told.value)


def test_secrets_come_from_the_environment_of_the_process_that_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("kafka://a/t?kafka.security.protocol=SASL_SSL&kafka.sasl.mechanism=PLAIN")
    with pytest.raises(UsageError, match="set FAN_IDENTITY_KAFKA_USERNAME and FAN_IDENTITY_KAFKA_PASSWORD"):
        client_properties(settings)
    monkeypatch.setenv("FAN_IDENTITY_KAFKA_USERNAME", "fans")
    monkeypatch.setenv("FAN_IDENTITY_KAFKA_PASSWORD", "hunter2")
    properties = client_properties(settings)
    assert (properties["sasl.username"], properties["sasl.password"]) == ("fans", "hunter2")
    assert properties["bootstrap.servers"] == "a"
    assert b"hunter2" not in pickle.dumps(settings)


def test_sasl_needs_a_mechanism(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"add kafka\.sasl.mechanism=SCRAM-SHA-512"):
        client_properties(settings_of("kafka://a/t?kafka.security.protocol=sasl_ssl"))
    client_properties(settings_of("kafka://a/t?kafka.security.protocol=SASL_SSL&kafka.sasl.mechanisms=OAUTHBEARER"))


@pytest.mark.parametrize("kind", [KafkaStream, KafkaPositions])
def test_streams_and_positions_travel_by_pickle(kind: Any) -> None:
    made = kind.of(parse_address("kafka://127.0.0.1:1/t?start=latest&kafka.client.rack=r", "source"), "source", "w")
    again = pickle.loads(pickle.dumps(made))
    assert vars(again) == vars(made)
