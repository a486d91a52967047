"""Calls of AWS's JSON services without boto3 say what boto3 would say, go where it goes, and fail as it fails."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError, SSLError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fan_identity.io.aws_json import _Connections, json_client

pytestmark = pytest.mark.usefixtures("made_up_aws_credentials")

MEDIA = "application/x-amz-json-1.0"
AGENT = {"content-type": MEDIA, "user-agent": "agent", "x-amz-target": "AmazonSQS"}
QUEUE = {"QueueUrl": "http://x/1/q"}
PUT = {"TableName": "t", "Item": {"PK": {"S": "x"}, "b": {"B": b"\x00\xff~"}, "s": {"BS": [b"", b"a"]}}}
BOTO3_ONLY = "amz-sdk-invocation-id"
"""A header that boto3 sends and we do not."""


Answer = tuple[int, dict[str, str], bytes]


class Service:
    """Answers every request with what it is told to, and keeps the requests."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[dict[str, str], Any]] = []
        self.answer: Answer = (200, {}, b"{}")
        self.first: list[Answer] = []
        """Answers before ``answer``."""
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): text for name, text in self.headers.items()}
                service.requests.append((headers, json.loads(body)))
                status, more, said = service.first.pop(0) if service.first else service.answer
                self.send_response(status)
                for name, text in {"Content-Length": str(len(said)), **more}.items():
                    self.send_header(name, text)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


def boto3_client(url: str, name: str = "sqs", attempts: int = 1, **config: Any) -> Any:
    retries = {"mode": "standard", "total_max_attempts": attempts}
    return boto3.client(
        name, endpoint_url=url, region_name="eu-west-1", config=Config(retries=retries, read_timeout=30, **config)
    )


def warmed(service: Service, name: str = "sqs", operation: str = "list_queues", attempts: int = 1) -> tuple[Any, Any]:
    """boto3's client, and ours after boto3 made its first call."""
    client = boto3_client(service.url, name, attempts)
    ours = json_client(client)
    service.requests.clear()
    service.first.clear()
    ours.call(operation, {})
    assert BOTO3_ONLY in service.requests[0][0]
    service.requests.clear()
    return client, ours


def test_after_the_first_call_requests_are_boto3s_in_all_that_matters(service):
    client, ours = warmed(service)
    entries = [{"Id": "0", "MessageBody": 'é\u2028 "\U0001f3ab', "MessageGroupId": "g"}]
    service.answer = (200, {}, b'{"Successful":[{"Id":"0","MessageId":"m"}],"Failed":[]}')
    answers = [
        ours.call("send_message_batch", {**QUEUE, "Entries": entries}),
        client.send_message_batch(**QUEUE, Entries=entries),
    ]
    del answers[1]["ResponseMetadata"]
    assert answers[0] == answers[1]
    (own, own_body), (theirs, their_body) = service.requests
    assert own_body == their_body == {**QUEUE, "Entries": entries}
    assert BOTO3_ONLY in theirs
    assert own.keys() <= theirs.keys()
    for name in own.keys() - {"authorization", "x-amz-date", "content-length"}:
        assert own[name] == theirs[name], name
    signed = [headers["authorization"].partition(", Signature")[0] for headers in (own, theirs)]
    assert signed[0] == signed[1]
    names = "content-type;host;x-amz-date;x-amz-target;x-amzn-query-mode"
    assert signed[0].endswith(f"/eu-west-1/sqs/aws4_request, SignedHeaders={names}")


def test_a_service_of_another_name_is_called_as_well(service):
    _, ours = warmed(service, "dynamodb", "list_tables")
    service.answer = (200, {}, b'{"Item":{"PK":{"S":"x"}}}')
    assert ours.call("get_item", {"TableName": "t", "Key": {}}) == {"Item": {"PK": {"S": "x"}}}
    assert service.requests[0][0]["x-amz-target"] == "DynamoDB_20120810.GetItem"


def test_bytes_go_as_boto3_sends_them(service):
    client, ours = warmed(service, "dynamodb", "list_tables")
    ours.call("put_item", PUT)
    client.put_item(**PUT)
    (_, own), (_, theirs) = service.requests
    assert own == theirs


def refusal(code: str, status: int = 400) -> Answer:
    return status, {}, json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "no"}).encode()


FINE: Answer = (200, {"x-amz-crc32": "2745614147"}, b"{}")
THROTTLED = refusal("ProvisionedThroughputExceededException")
FAILED = refusal("InternalServerError", 500)
WRITTEN = refusal("ConditionalCheckFailedException")
SCRIPTS: dict[str, list[Answer]] = {
    "fine": [FINE],
    "again": [THROTTLED, FAILED, (503, {}, b"<html>"), (429, {}, b""), FINE],
    "to the end": [FAILED] * 5,
    "the service's answer": [WRITTEN],
    "in between": [THROTTLED, WRITTEN],
    "not ours to try": [refusal("ValidationException")],
}


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """What would have been slept; all of it, and nothing is."""
    asked: list[float] = []
    monkeypatch.setattr("time.sleep", asked.append)
    return asked


def outcome(call: Callable[[], Any], script: list[Answer], service: Service, pauses: list[float]) -> list[Any]:
    """What came of a call: requests, pauses, and the answer or error."""
    service.requests.clear()
    pauses.clear()
    service.first = list(script)
    told: Any = None
    try:
        call()
    except ClientError as error:
        told = type(error).__name__, error.response["Error"]
    return [len(service.requests), len(pauses), told]


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_boto3_tries_again_is_tried_again_as_often(service, pauses, name):
    script = SCRIPTS[name]
    client, ours = warmed(service, "dynamodb", "list_tables", attempts=5)
    own = outcome(lambda: ours.call_with_retries("put_item", PUT), script, service, pauses)
    theirs = outcome(lambda: client.put_item(**PUT), script, service, pauses)
    assert own == theirs
    assert own[0] == len(script)


def test_the_pauses_are_boto3s(service, pauses):
    """Up to a second after throttling, a fortieth after DynamoDB's own errors; twice as much each time."""
    for answer, base in ((THROTTLED, 1.0), (FAILED, 0.025)):
        _, ours = warmed(service, "dynamodb", "list_tables", attempts=5)
        seen: list[list[float]] = []
        for _ in range(10):
            outcome(partial(ours.call_with_retries, "put_item", PUT), [answer] * 4, service, pauses)
            seen.append(list(pauses))
        for number, same in enumerate(zip(*seen, strict=True)):
            assert all(0 <= pause <= base * 2**number for pause in same)
            assert max(same) > base * 2**number / 4  # of ten by chance


def test_the_budget_of_retries_is_boto3s(service, pauses):
    """It empties while nothing succeeds, and fills up by what does."""
    books: list[list[Any]] = []
    for own in (True, False):
        client, ours = warmed(service, "dynamodb", "list_tables", attempts=5)

        def call(own: bool = own, client: Any = client, ours: Any = ours) -> Any:
            return ours.call_with_retries("put_item", PUT) if own else client.put_item(**PUT)

        scripts = [[FAILED] * 5] * 15 + [[FINE]] * 40 + [[FAILED, FINE]] * 5 + [[FAILED] * 5] * 3
        books.append([outcome(call, script, service, pauses)[0] for script in scripts])
    assert books[0] == books[1]
    assert books[0][0] == 5 and books[0][14] == 1  # else this shows nothing


@pytest.mark.parametrize("torn", [(200, {"x-amz-crc32": "1"}, b"{}"), (200, {}, b'{"a"')])
def test_a_torn_answer_is_asked_for_again(service, pauses, torn):
    _, ours = warmed(service, "dynamodb", "list_tables", attempts=3)
    assert outcome(lambda: ours.call_with_retries("put_item", PUT), [torn, FINE], service, pauses) == [2, 1, None]
    with pytest.raises(HTTPClientError):
        outcome(lambda: ours.call_with_retries("put_item", PUT), [torn] * 3, service, pauses)
    assert len(service.requests) == 3


def test_the_first_call_is_tried_again_by_boto3_alone(service, pauses):
    ours = json_client(boto3_client(service.url, "dynamodb", attempts=5))
    assert outcome(lambda: ours.call_with_retries("put_item", PUT), [FAILED, FINE], service, pauses) == [2, 1, None]


def test_a_session_token_is_sent_and_signed(service, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token/+=")
    _, ours = warmed(service)
    ours.call("list_queues", {})
    headers, _ = service.requests[0]
    assert headers["x-amz-security-token"] == "token/+="
    assert "x-amz-date;x-amz-security-token;x-amz-target;x-amzn-query-mode," in headers["authorization"]


def test_one_client_is_called_in_one_way():
    client = boto3_client("http://127.0.0.1:1")
    assert json_client(client) is json_client(client)


ERRORS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "modeled": (400, {}, b'{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no such queue"}'),
    "query": (
        400,
        {"x-amzn-query-error": "AWS.SimpleQueueService.NonExistentQueue;Sender"},
        b'{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no such queue"}',
    ),
    "throttled": (400, {"x-amzn-RequestId": "r"}, b'{"__type":"ThrottlingException","Message":"slower"}'),
    "denied": (403, {}, b'{"__type":"AccessDeniedException:http://x","message":"no"}'),
    "broken": (500, {}, b'{"__type":"InternalError"}'),
    "proxy": (503, {}, b"<html>Service Unavailable</html>"),
    "no body": (502, {}, b""),
    "moved": (301, {}, b""),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_the_one_boto3_raises(service, name):
    client, ours = warmed(service)
    service.answer = ERRORS[name]
    raised: list[Any] = []
    for call in (lambda: ours.call("receive_message", QUEUE), lambda: client.receive_message(**QUEUE)):
        with pytest.raises(ClientError) as caught:
            call()
        raised.append(caught.value)
    assert type(raised[0]) is type(raised[1])
    assert raised[0].response["Error"] == raised[1].response["Error"]
    assert raised[0].operation_name == raised[1].operation_name
    assert [BOTO3_ONLY in headers for headers, _ in service.requests] == [False, True]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{", b'"x"', b"\xff", b'{"a":\xff}'])
def test_an_answer_that_is_no_json_object_is_an_error_of_the_service(service, body):
    _, ours = warmed(service)
    service.answer = (200, {}, body)
    with pytest.raises(HTTPClientError):
        ours.call("receive_message", QUEUE)


def test_half_a_surrogate_pair_comes_and_goes_as_with_boto3(service):
    _, ours = warmed(service)
    service.answer = (200, {}, b'{"Messages":[{"Body":"a\\ud800b"}]}')
    assert ours.call("receive_message", {**QUEUE, "ReceiveRequestAttemptId": "\ud800"}) == {
        "Messages": [{"Body": "a\ud800b"}]
    }
    assert service.requests[0][1]["ReceiveRequestAttemptId"] == "\ud800"


def test_an_answer_without_a_body_is_empty(service):
    _, ours = warmed(service)
    service.answer = (200, {}, b"")
    assert ours.call("delete_message", {**QUEUE, "ReceiptHandle": "r"}) == {}


def test_a_service_that_went_away_is_out_of_reach(service):
    _, ours = warmed(service)
    service.close()
    ours._route._connections._idle.clear()  # a thread of the server's still holds the connection
    with pytest.raises(EndpointConnectionError):
        ours.call("list_queues", {})


@pytest.mark.parametrize("setting", ["environment", "config"])
def test_through_a_proxy_boto3_goes_on(service, monkeypatch, setting):
    host = service.url.removeprefix("http://")
    if setting == "environment":
        monkeypatch.setenv("HTTP_PROXY", f"http://{host}")
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
    proxies = {"proxies": {"http": f"http://{host}"}} if setting == "config" else {}
    ours = json_client(boto3_client("http://sqs.invalid:1", **proxies))
    for _ in range(3):
        ours.call("list_queues", {})
    assert all(BOTO3_ONLY in headers for headers, _ in service.requests)
    assert len(service.requests) == 3


def test_unsigned_requests_stay_with_boto3(service):
    ours = json_client(boto3_client(service.url, signature_version=UNSIGNED))
    for _ in range(2):
        ours.call("list_queues", {})
    assert all(BOTO3_ONLY in headers and "authorization" not in headers for headers, _ in service.requests)


def test_credentials_of_another_session_stay_with_boto3(service):
    session = boto3.session.Session("another", "secret")
    boto3.setup_default_session()
    client = session.client("sqs", endpoint_url=service.url, region_name="eu-west-1")
    ours = json_client(client)
    for _ in range(2):
        ours.call("list_queues", {})
    assert all("Credential=another/" in headers["authorization"] for headers, _ in service.requests)


@pytest.mark.parametrize("trusted", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", None])
def test_tls_trusts_what_boto3_trusts(tmp_path, monkeypatch, trusted):
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    service = Service(context)
    try:
        monkeypatch.setenv(trusted or "AWS_CA_BUNDLE", certificate)
        ours = json_client(boto3_client(service.url))
        ours.call("list_queues", {})
        if trusted is None:
            monkeypatch.delenv("AWS_CA_BUNDLE")
            with pytest.raises(SSLError):
                json_client(boto3_client(service.url)).call("list_queues", {})
            return
        for _ in range(2):
            ours.call("list_queues", {})
        assert [BOTO3_ONLY in headers for headers, _ in service.requests] == [True, False, False]
    finally:
        service.close()


def test_tls_refuses_a_certificate_nobody_signed_also_after_boto3s_call(tmp_path, monkeypatch):
    certificate, other = self_signed(tmp_path), self_signed(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    service = Service(context)
    try:
        monkeypatch.setenv("AWS_CA_BUNDLE", certificate)
        ours = json_client(boto3_client(service.url))
        ours.call("list_queues", {})
        wrong = ssl.create_default_context(cafile=other)
        port = int(service.url.rpartition(":")[2].strip("/"))
        ours._route._connections = _Connections(lambda: HTTPSConnection("127.0.0.1", port, context=wrong), 5.0)
        with pytest.raises(SSLError):
            ours.call("list_queues", {})
    finally:
        service.close()


def self_signed(folder: Any, name: str = "server") -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return str(path)


def test_many_threads_share_a_client(service):
    _, ours = warmed(service)
    failed: list[Callable[..., object] | BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(20):
                ours.call("delete_message", {**QUEUE, "ReceiptHandle": f"{name} {number}"})
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    asked = sorted(body["ReceiptHandle"] for _, body in service.requests)
    assert asked == sorted(f"{name} {number}" for name in range(8) for number in range(20))
