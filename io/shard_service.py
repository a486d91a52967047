"""What the services of shards have in common besides the shards: options, and the errors they answer with."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final

from botocore.exceptions import ClientError, ParamValidationError  # pyright: ignore[reportMissingTypeStubs]

from .addresses import Address
from .aws import THROTTLED, error_code, error_of, translated_errors
from .clock import now_ms
from .errors import UsageError
from .shards import IteratorExpiredError, ShardGoneError, Start, StartKind, ThrottledError, TrimmedError

_EXPIRED: Final = "ExpiredIteratorException"
_GONE: Final = "ResourceNotFoundException"
_TRIMMED: Final = "TrimmedDataAccessException"
_NO_SUCH_SEQUENCE: Final = frozenset({_TRIMMED, "InvalidArgumentException", "ValidationException"})
_SLOWER: Final = THROTTLED | {"KMSThrottlingException"}


@contextmanager
def shard_errors(setting: str, address: Address, start: Start | None = None) -> Generator[None]:
    """Turns what a service answers in the block into errors of ours.

    Args:
        setting: where the address came from.
        address: the stream's.
        start: what an iterator is asked for. A service that knows no such sequence number any more may call the
            request invalid.

    Raises:
        ShardError: one of its kinds.
        UsageError, BackendUnavailableError: as ``translated_errors`` has them.
    """
    at_sequence = start is not None and start.kind is StartKind.AT_SEQUENCE_NUMBER
    with translated_errors(setting, address):
        try:
            yield
        except ParamValidationError:
            if at_sequence:  # too short or too long: not one of the service's
                raise TrimmedError from None
            raise
        except ClientError as error:
            code = error_code(error)
            if code == _EXPIRED:
                raise IteratorExpiredError from None
            if code == _GONE:
                raise ShardGoneError from None
            if code == _TRIMMED or (at_sequence and code in _NO_SUCH_SEQUENCE):
                raise TrimmedError from None
            if code in _SLOWER:
                raise ThrottledError from None
            raise


def missing(setting: str, address: Address) -> Exception:
    """The error for a stream that does not exist."""
    return error_of(_GONE, setting, f"{address.scheme}://{address.target}")


def answered_at_ms(answer: Mapping[str, Any]) -> int:
    """When a service answered by its own clock: epoch milliseconds, rounded down to the second."""
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return int(parsedate_to_datetime(text).timestamp()) * 1_000
    except (TypeError, ValueError):
        return now_ms() // 1_000 * 1_000


def earliest_or_latest(address: Address, setting: str) -> bool:
    """Whether option ``start`` says latest.

    Raises:
        UsageError: it says neither.
    """
    start = address.options.get("start", "earliest")
    if start not in ("earliest", "latest"):
        raise UsageError(f"--{setting}: option start is earliest or latest")
    return start == "latest"
