"""Identity checks by AWS Rekognition Face Liveness.

Source: Amazon Rekognition API reference, CreateFaceLivenessSession.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ...io.addresses import Address, check_options
from ...io.asking import answered, waiting_limits
from ...io.aws import THROTTLED, error_code, translated_errors
from ...io.caller import Caller, RefusedError, TransientError
from ...io.errors import UsageError
from ..data_sources import LivenessSession

CREATED: Final = "CREATED"
"""A new session's status."""

_IN_FLIGHT: Final = 16
_TRANSIENT: Final = THROTTLED | {"InternalServerError", "ServiceUnavailable"}
_ERROR: Final = 500


class RekognitionChecks:
    """Starts Face Liveness sessions at ``rekognition://region?endpoint=…``; implements ``data_sources.IdentityChecks``.

    boto3 makes the calls, in threads. A call may be made twice: the request token makes it one session.

    Args:
        address: whose target is the region.
        setting: where it came from.
        deadline_seconds: of a start.

    Raises:
        UsageError: the address has no region or an unknown option, or there are no credentials.
    """

    def __init__(self, address: Address, setting: str, deadline_seconds: float) -> None:
        check_options(address, setting, {"endpoint"})
        if not address.target:
            raise UsageError(f"--{setting}: write rekognition://region, such as rekognition://eu-west-1")
        self._source = setting
        self._caller = Caller(
            setting, str(sorted(address.options.items())), waiting_limits(deadline_seconds, in_flight=_IN_FLIGHT)
        )
        self._threads = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="fan-identity-rekognition")
        config = Config(
            connect_timeout=deadline_seconds,
            read_timeout=deadline_seconds,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=_IN_FLIGHT,
        )
        make: Any = boto3.client  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType] - no types
        with translated_errors(setting, address):
            self._client: Any = make(
                "rekognition",
                region_name=address.target,
                endpoint_url=address.options.get("endpoint"),
                config=config,
            )

    async def start(self, global_user_id: str, request_token: str) -> LivenessSession:
        """Starts a session; the same ``request_token`` never starts a second one.

        Args:
            global_user_id: whose; AWS is not told.
            request_token: 1 to 64 letters, digits, dashes or underscores.

        Raises:
            UnavailableError: AWS gives no answer in time, or refuses.
        """
        del global_user_id

        async def attempt() -> str:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._create, request_token)

        return LivenessSession(await answered(self._source, self._caller, attempt), CREATED)

    async def close(self) -> None:
        """Ends the threads, once what they do is done."""
        self._threads.shutdown(wait=False)

    def _create(self, request_token: str) -> str:
        try:
            return str(self._client.create_face_liveness_session(ClientRequestToken=request_token)["SessionId"])
        except ClientError as error:
            code, response = error_code(error), cast("dict[str, Any]", error.response)
            if code in _TRANSIENT or response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _ERROR:
                raise TransientError(code) from None
            raise RefusedError(f"{self._source}_refused", code) from None
        except BotoCoreError as error:
            raise TransientError(type(error).__name__) from None
        except KeyError:
            raise RefusedError(f"{self._source}_invalid", "the answer has no SessionId") from None
