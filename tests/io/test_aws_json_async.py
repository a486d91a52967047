"""Calls of AWS's JSON services on an event loop: signed with credentials that are renewed, errors by their kind."""

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from botocore.credentials import RefreshableCredentials

from fan_identity.io.addresses import Address
from fan_identity.io.aws_json_async import AsyncAwsClient, AwsRefusedError
from fan_identity.io.caller import TransientError
from fan_identity.io.errors import UsageError

pytestmark = pytest.mark.usefixtures("made_up_aws_credentials")


class Service:
    """Answers every request with what it is told to, and keeps the requests."""

    def __init__(self):
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer: tuple[int, bytes] = (200, b"{}")
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.requests.append(({name.lower(): text for name, text in self.headers.items()}, body))
                status, said = service.answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.close()


def run(service, use, region="eu-west-1"):
    async def running():
        options = {"endpoint": service.url, **({"region": region} if region else {})}
        client = AsyncAwsClient("dynamodb", Address("dynamodb", "fans", options), "table")
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(running())


def get(client):
    return client.call("GetItem", {"TableName": "fans"})


def test_a_request_is_signed_for_service_and_region_and_named_as_boto3_names_it(service):
    run(service, get)
    ours, body = service.requests.pop()
    boto3.client("dynamodb", endpoint_url=service.url, region_name="eu-west-1").list_tables()
    theirs, _ = service.requests.pop()
    assert json.loads(body) == {"TableName": "fans"}
    assert ours["x-amz-target"] == "DynamoDB_20120810.GetItem"
    assert theirs["x-amz-target"] == "DynamoDB_20120810.ListTables"
    for name in ("content-type", "host"):
        assert ours[name] == theirs[name]
    scope = f"Credential=made-up/{datetime.now(UTC):%Y%m%d}/eu-west-1/dynamodb/aws4_request"
    assert scope in ours["authorization"] and scope in theirs["authorization"]


def test_credentials_that_end_are_renewed_by_one_of_those_who_wait(service, monkeypatch):
    renewals: list[int] = []
    soon = timedelta(minutes=1)

    def renew():
        renewals.append(1)
        return {
            "access_key": f"renewed-{len(renewals)}",
            "secret_key": "s",
            "token": f"token-{len(renewals)}",
            "expiry_time": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        }

    temporary = RefreshableCredentials("first", "s", "token-0", datetime.now(UTC) + soon, renew, "test")
    session = boto3.Session()
    monkeypatch.setattr(session, "get_credentials", lambda: temporary)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)

    async def use(client):
        await asyncio.gather(*(get(client) for _ in range(20)))
        assert renewals == [1]
        temporary._expiry_time = datetime.now(UTC) + soon
        client._frozen_at = float("-inf")  # ten seconds later
        await asyncio.gather(*(get(client) for _ in range(20)))

    run(service, use)
    assert len(renewals) == 2
    tokens = [headers["x-amz-security-token"] for headers, _ in service.requests]
    assert tokens == ["token-1"] * 20 + ["token-2"] * 20
    assert "renewed-2" in service.requests[-1][0]["authorization"]


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((400, b'{"__type":"x#ThrottlingException"}'), TransientError, "ThrottlingException"),
        ((400, b'{"__type":"x#ConditionalCheckFailedException"}'), AwsRefusedError, "ConditionalCheckFailedException"),
        ((500, b"<html>"), TransientError, "status 500"),
        ((503, b'{"__type":"x#ServiceUnavailable"}'), TransientError, "ServiceUnavailable"),
        ((200, b'{"Item":'), AwsRefusedError, "not JSON"),
        ((302, b"{}"), AwsRefusedError, "status 302"),
        ((200, b'{"x":"' + b"x" * 17_000_000 + b'"}'), AwsRefusedError, "too large"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors_are_of_two_kinds(service, answer, kind, said):
    service.answer = answer
    with pytest.raises(kind, match=said):
        run(service, get)


def test_without_a_region_the_setting_is_named(service):
    with pytest.raises(UsageError, match=r"^--table: no region; add \?region=eu-west-1 to dynamodb://fans"):
        run(service, get, region=None)
