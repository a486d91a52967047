"""Face Liveness sessions. There is no emulator of Rekognition here: boto3's own validation and stubber, and a small
server that speaks the protocol as the API reference has it, stand for AWS."""

import asyncio
import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.stub import Stubber

from fan_identity.io.addresses import parse_address
from fan_identity.io.errors import UnavailableError, UsageError
from fan_identity.serving.upstreams.rekognition import RekognitionChecks

pytestmark = pytest.mark.usefixtures("made_up_aws_credentials")

TOKEN = "a" * 64
SESSION = "0f959dbb-37cc-45d8-a08d-dc42cce85fa8"


class Rekognition:
    """Speaks ``CreateFaceLivenessSession``: a token seen before gives its session again."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.sessions: dict[str, str] = {}
        self.faults: list[tuple[int, Any] | str] = []
        self.thaw = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.requests.append((self.headers["X-Amz-Target"], self.headers["Authorization"], body))
                fault = service.faults.pop(0) if service.faults else None
                if fault == "hang":
                    service.thaw.wait(60)
                    self.close_connection = True
                    return
                token = body["ClientRequestToken"]
                made = {"SessionId": service.sessions.setdefault(token, str(uuid.uuid4()))}
                if fault == "lost":  # it has its effect, and nobody is told
                    self.close_connection = True
                    return
                status, answer = fault if isinstance(fault, tuple) else (200, made)
                said = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.address = f"rekognition://eu-west-1?endpoint=http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.thaw.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def rekognition():
    service = Rekognition()
    yield service
    service.close()


def checks_of(address: str, deadline: float = 20.0) -> RekognitionChecks:
    return RekognitionChecks(parse_address(address, "identity_checks"), "identity_checks", deadline)


def start(address: str, *tokens: str, deadline: float = 20.0) -> list[str]:
    async def starting() -> list[str]:
        checks = checks_of(address, deadline)
        try:
            found = [await checks.start("fan-1", token) for token in tokens]
            assert {session.status for session in found} <= {"CREATED"}
            return [session.session_id for session in found]
        finally:
            await checks.close()

    return asyncio.run(starting())


def test_a_session_is_made_once_for_a_token_and_the_fan_is_not_told_of(rekognition):
    first, again, other = start(rekognition.address, TOKEN, TOKEN, "b" * 64)
    assert first == again != other
    target, signature, body = rekognition.requests[0]
    assert target == "RekognitionService.CreateFaceLivenessSession"
    assert "/eu-west-1/rekognition/aws4_request" in signature
    assert body == {"ClientRequestToken": TOKEN}


def test_the_call_is_one_boto3_knows():
    checks = checks_of("rekognition://eu-west-1")
    with Stubber(checks._client) as stubber:
        stubber.add_response("create_face_liveness_session", {"SessionId": SESSION}, {"ClientRequestToken": TOKEN})
        assert asyncio.run(checks.start("fan-1", TOKEN)).session_id == SESSION
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    "fault",
    ["lost", (400, {"__type": "ThrottlingException"}), (500, {"__type": "InternalServerError"}), (503, {})],
    ids=str,
)
def test_what_passes_is_tried_once_more_and_stays_one_session(rekognition, fault):
    rekognition.faults = [fault]
    assert start(rekognition.address, TOKEN) == list(rekognition.sessions.values())
    assert len(rekognition.requests) == 2


@pytest.mark.parametrize(
    ("faults", "said", "calls"),
    [
        ([(400, {"__type": "AccessDeniedException"})], "AccessDeniedException", 1),
        ([(400, {"__type": "InvalidParameterException", "message": "fan-1"})], "InvalidParameterException", 1),
        ([(200, {})], "no SessionId", 1),
        ([(500, {})] * 2, "500", 2),
        (["lost"] * 2, "Connection", 2),
    ],
    ids=str,
)
def test_what_does_not_pass_is_not_available(rekognition, faults, said, calls):
    rekognition.faults = list(faults)
    with pytest.raises(UnavailableError, match=said) as failed:
        start(rekognition.address, TOKEN)
    assert failed.value.source == "identity_checks" and "fan-1" not in str(failed.value)
    assert len(rekognition.requests) == calls


def test_one_that_hangs_costs_its_deadline(rekognition):
    rekognition.faults = ["hang"] * 2
    with pytest.raises(UnavailableError, match="no answer"):
        start(rekognition.address, TOKEN, deadline=0.3)


@pytest.mark.parametrize("address", ["rekognition://", "rekognition://eu-west-1?region=x"])
def test_a_wrong_address_names_its_setting(address):
    with pytest.raises(UsageError, match=r"^--identity_checks: "):
        checks_of(address)
