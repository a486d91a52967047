"""The webhook: signed, bounded in time and bytes, never shown, never led astray."""

import hashlib
import hmac
import socket
import threading
import time

import pytest

from fan_identity.io import alerts
from fan_identity.io.alerts import SECRET_ENV, WEBHOOK_ENV, Webhook, signature
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.one_request import answered_status

from ..webhook import Receiver

NOTICE = {"part": "table", "event_action": "trigger", "text": "fan-identity: table is DOWN"}


def test_a_notice_arrives_as_json_and_signed():
    with Receiver() as receiver:
        Webhook(receiver.url, "key").send(NOTICE)
    (request,) = receiver.requests
    assert request.json == NOTICE
    assert request.headers["content-type"] == "application/json"
    stamp, _, digest = request.headers["x-fan-identity-signature"].partition(",v1=")
    at = stamp.removeprefix("t=")
    assert abs(int(at) - time.time()) < 60
    assert digest == hmac.new(b"key", at.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    assert signature(b"{}", "key", 5) != signature(b"{}", "key", 6)


def test_without_a_secret_there_is_no_signature():
    with Receiver() as receiver:
        Webhook(receiver.url).send(NOTICE)
    assert "x-fan-identity-signature" not in receiver.requests[0].headers


@pytest.mark.parametrize(
    ("mood", "problem"),
    [
        ("hang", "gave no answer in 0.5 s"),
        ("drip", "no answer in 0.5 s"),
        ("interim", "no answer in 0.5 s"),
        ("reset", "gives no answer"),
        ("rubbish", "gives no answer"),
        ("500", "answers 500"),
        ("404", "answers 404"),
        ("redirect", "answers 302 (a redirect, which is not followed)"),
    ],
)
def test_one_in_trouble_is_an_error_that_does_not_show_its_url(monkeypatch, mood, problem):
    if mood in ("hang", "drip", "interim"):
        monkeypatch.setattr(alerts, "_SECONDS", 0.5)
    with Receiver() as elsewhere, Receiver(mood, elsewhere.url) as receiver:
        with pytest.raises(BackendUnavailableError) as raised:
            Webhook(receiver.url).send(NOTICE)
        assert problem.removeprefix("gave ") in str(raised.value)
        assert "secret" not in str(raised.value) and str(receiver.port) not in str(raised.value)
        assert elsewhere.requests == []


def test_an_endless_answer_is_not_read():
    with Receiver("flood") as receiver:
        Webhook(receiver.url).send(NOTICE)
        # What the sockets hold by themselves, and nothing near a gigabyte.
        assert receiver.sent_bytes < 20_000_000


def test_one_that_nobody_listens_at_is_out_of_reach():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(BackendUnavailableError, match=r"the webhook is out of reach \(ConnectionRefusedError\)"):
        Webhook(f"http://127.0.0.1:{port}/secret").send(NOTICE)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data/", "leads to an address alerts are not sent to"),
        ("https://169.254.169.254/", "leads to an address alerts are not sent to"),
        ("http://[fe80::1]/", "leads to an address alerts are not sent to"),
        ("http://[::ffff:169.254.169.254]/", "leads to an address alerts are not sent to"),
        ("http://[fd00:ec2::254]/", "leads to an address alerts are not sent to"),
        ("http://0.0.0.0/", "leads to an address alerts are not sent to"),
        ("http://8.8.8.8/hook", "is not encrypted and leads out of this network; use https"),
    ],
)
def test_nothing_is_sent_to_metadata_or_in_the_clear_over_the_internet(url, reason):
    with pytest.raises(BackendUnavailableError) as raised:
        Webhook(url).send(NOTICE)
    assert str(raised.value) == f"the webhook {reason}"


def test_a_name_that_leads_to_metadata_is_refused_by_where_it_leads(monkeypatch):
    def resolve(*_: object, **__: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 443)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 443)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(BackendUnavailableError, match="not sent to"):
        Webhook("https://hooks.example.com/x").send(NOTICE)


def test_of_several_addresses_one_that_answers_is_enough(monkeypatch):
    """As a balancer's name that still leads to a node that is gone, too."""
    with Receiver() as receiver:
        there = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.port))
        gone = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", receiver.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [gone, there])
        assert answered_status(f"http://balancer.example.com:{receiver.port}/", 60.0) == 200
        assert receiver.requests[0].headers["host"] == f"balancer.example.com:{receiver.port}"


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example.com/x",
        "ftp://host/x",
        "https://user:pw@host/x",
        "https:///x",
        "https://host:port/x",
        "https://a b/",
    ],
)
def test_what_is_no_address_of_a_webhook_is_a_wrong_setting_and_not_repeated(monkeypatch, url):
    monkeypatch.setenv(WEBHOOK_ENV, url)
    with pytest.raises(UsageError) as raised:
        Webhook.from_environment()
    assert str(raised.value) == f"{WEBHOOK_ENV}: an address https://host/path is needed"


def test_the_environment_names_webhook_and_secret(monkeypatch):
    monkeypatch.delenv(WEBHOOK_ENV, raising=False)
    assert Webhook.from_environment() is None
    with Receiver() as receiver:
        monkeypatch.setenv(WEBHOOK_ENV, f" {receiver.url}\n")
        monkeypatch.setenv(SECRET_ENV, "key")
        found = Webhook.from_environment()
        assert found is not None and "secret" not in repr(found)
        found.send(NOTICE)
    assert "x-fan-identity-signature" in receiver.requests[0].headers


def test_the_watch_over_a_request_ends_with_it(until):
    with Receiver() as receiver:
        for _ in range(20):
            assert answered_status(receiver.url, 60.0) == 200
    until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()), "a timer is left")
