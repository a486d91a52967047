"""AWS clients: one a process, service and address, with errors that name the setting and the remedy."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)

from .addresses import Address
from .errors import BackendUnavailableError, UsageError

AWS_OPTIONS: Final = frozenset({"region", "endpoint"})
"""What every AWS address takes: the region, and the endpoint of a server that is not AWS's own."""

_CONNECT_SECONDS: Final = 3
_READ_SECONDS: Final = 30
_ATTEMPTS: Final = 5
_OWN_ATTEMPTS: Final = {"sqs": 2}
"""Of services whose module tries again itself, with a deadline."""
_POOL: Final = 64

_ABSENT: Final = frozenset(
    {
        "ResourceNotFoundException",
        "QueueDoesNotExist",
        "AWS.SimpleQueueService.NonExistentQueue",
        "NonExistentQueue",
        "QueueDoesNotExistException",
    }
)
_REFUSED: Final = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "AccessDenied",
        "AccessDeniedException",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "ExpiredToken",
        "ExpiredTokenException",
        "MissingAuthenticationToken",
    }
)
THROTTLED: Final = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "LimitExceededException",
        "RequestThrottled",
        "TooManyRequestsException",
    }
)
"""Error codes that mean: slower."""

_making = threading.Lock()  # boto3's sessions are not safe to make clients from in several threads


def client(service: str, address: Address, setting: str, *, once: float | None = None) -> Any:
    """The client of a service; the same for the same region and endpoint. Retries as boto3's standard mode does.

    Args:
        service: boto3's name for it, such as ``sqs``.
        address: whose options ``region`` and ``endpoint`` count.
        setting: where the address came from, for errors.
        once: for probes, a client that tries a call once and waits so many seconds for it.

    Raises:
        UsageError: no region or no credentials are known.
    """
    with translated_errors(setting, address):
        return _client(service, address.options.get("region"), address.options.get("endpoint"), once)


@cache
def _client(service: str, region: str | None, endpoint: str | None, once: float | None) -> Any:
    attempts = _OWN_ATTEMPTS.get(service, _ATTEMPTS) if once is None else 1
    config = Config(
        connect_timeout=once or _CONNECT_SECONDS,
        read_timeout=once or _READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=_POOL,
        tcp_keepalive=True,
    )
    make: Any = boto3.client  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType] - no types
    with _making:
        return make(service, region_name=region, endpoint_url=endpoint, config=config)


@contextmanager
def translated_errors(setting: str, address: Address) -> Generator[None]:
    """Turns what boto3 raises in the block into errors of ours: one line that names the setting and the remedy.

    Raises:
        UsageError: the thing does not exist, or region or credentials are missing or refused.
        BackendUnavailableError: anything else: out of reach, throttled for too long, an error of the service.
    """
    name = f"{address.scheme}://{address.target}"
    try:
        yield
    except NoRegionError:
        raise UsageError(f"--{setting}: no region; add ?region=eu-west-1 to {name} or set AWS_DEFAULT_REGION") from None
    except (NoCredentialsError, PartialCredentialsError):
        raise UsageError(
            f"--{setting}: no AWS credentials for {name}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE, or run where a role gives them"
        ) from None
    except ClientError as error:
        raise error_of(error_code(error), setting, name) from None
    except ParamValidationError:
        raise UsageError(f"--{setting}: {name} is not a name AWS could have") from None
    except (BotoCoreError, ValueError) as error:
        # A malformed endpoint is a ValueError of botocore's.
        kind = UsageError if isinstance(error, ValueError) else BackendUnavailableError
        raise kind(f"--{setting}: {name} is out of reach ({type(error).__name__})") from None


def error_code(error: ClientError) -> str:
    """The service's error code."""
    response: Any = error.response
    return str(response.get("Error", {}).get("Code", "")).rpartition("#")[2]


def error_of(code: str, setting: str, name: str) -> UsageError | BackendUnavailableError:
    """The error of ours for a service's error code."""
    if code in _ABSENT:
        return UsageError(
            f"--{setting}: {name} does not exist in this region and account; create it or correct the name"
        )
    if code in _REFUSED:
        return UsageError(f"--{setting}: the AWS credentials in use are refused for {name} ({code})")
    return BackendUnavailableError(f"--{setting}: {name} answers {code}")
