"""Rescore requests: users to score again though nothing new happened."""

from collections.abc import Mapping
from typing import Any

import msgspec

from .activity import MalformedRecordError, format_time_ms, parse_time_ms
from .messages import Cause, ScoringMessage, caused_by

MAX_USERS = 100_000


class RescoreRequest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A message of the rescore queue.

    Fans are named in exactly one way: ``users``, ``cluster_id``, ``model_version``, or a time range, which has
    ``scored_from``, ``scored_to`` or both.

    Attributes:
        rescore_id: names the request: sent again, it causes the same score items.
        users: their global user ids.
        cluster_id: everyone whose latest score is of this cluster.
        model_version: everyone whose latest score was made by this model.
        scored_from: everyone whose latest score is of this time or later; epoch milliseconds or ISO 8601.
        scored_to: everyone whose latest score is of an earlier time.
        requested_at: epoch milliseconds or ISO 8601; the time of the scores. The message's sending time where None.
    """

    rescore_id: str
    users: tuple[str, ...] | None = None
    cluster_id: str | None = None
    model_version: str | None = None
    scored_from: int | float | str | None = None
    scored_to: int | float | str | None = None
    requested_at: int | float | str | None = None


_decoder = msgspec.json.Decoder(RescoreRequest)
_encode = msgspec.json.Encoder().encode


def decode_rescore_request(body: bytes) -> RescoreRequest:
    """Reads a request.

    Raises:
        MalformedRecordError: it is none, names nobody or names them in two ways, or more than ``MAX_USERS``.
    """
    try:
        request = _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedRecordError(f"not a rescore request: {error}") from None
    check_request(request)
    return request


def check_request(request: RescoreRequest) -> None:
    """Checks a request, however it came.

    Raises:
        MalformedRecordError: it names nobody or names them in two ways, or more than ``MAX_USERS``, or a time is none.
    """
    if not request.rescore_id.strip():
        raise MalformedRecordError("rescoreId is blank")
    by_time = request.scored_from is not None or request.scored_to is not None
    ways = (request.users, request.cluster_id, request.model_version)
    if by_time + sum(way is not None for way in ways) != 1:
        raise MalformedRecordError(
            "a rescore request has one of users, clusterId, modelVersion, and a range scoredFrom, scoredTo"
        )
    if request.users is not None and len(request.users) > MAX_USERS:
        raise MalformedRecordError(f"a rescore request names {MAX_USERS} users at most")
    if request.users is not None and not all(user.strip() for user in request.users):
        raise MalformedRecordError("a user is blank")
    if request.requested_at is not None:
        _time_ms("requestedAt", request.requested_at)
    begin, end = scored_range(request)
    if begin is not None and end is not None and begin >= end:
        raise MalformedRecordError("scoredFrom is not before scoredTo")


def scored_range(request: RescoreRequest) -> tuple[int | None, int | None]:
    """The request's time range, from and to before, in epoch milliseconds; None for an open end.

    Raises:
        MalformedRecordError: a time is none.
    """
    return (
        None if request.scored_from is None else _time_ms("scoredFrom", request.scored_from),
        None if request.scored_to is None else _time_ms("scoredTo", request.scored_to),
    )


def _time_ms(name: str, value: int | float | str) -> int:
    try:
        return parse_time_ms(value)
    except MalformedRecordError as error:
        raise MalformedRecordError(str(error).replace("occurredAt", name)) from None


def selects(request: RescoreRequest, latest: Mapping[str, Any]) -> bool:
    """Whether a user is meant by cluster, model version or time range.

    Args:
        request: without ``users``.
        latest: the user's ``LATEST`` item.
    """
    if request.cluster_id is not None:
        return latest.get("clusterId") == request.cluster_id
    if request.scored_from is not None or request.scored_to is not None:
        return _in_range(latest.get("occurredAt"), *scored_range(request))
    return latest.get("modelVersion") == request.model_version


def _in_range(occurred_at: object, begin: int | None, end: int | None) -> bool:
    """Whether an item's ``occurredAt`` lies in a range. Fixed width, so that text order is time order."""
    if not isinstance(occurred_at, str):
        return False
    return (begin is None or occurred_at >= format_time_ms(begin)) and (
        end is None or occurred_at < format_time_ms(end)
    )


def rescore_time_ms(request: RescoreRequest, sent_at_ms: int) -> int:
    """The time of the request's scores, epoch milliseconds."""
    return sent_at_ms if request.requested_at is None else parse_time_ms(request.requested_at)


def rescore_message(request: RescoreRequest, global_user_id: str, time_ms: int, request_id: str) -> ScoringMessage:
    """What scores one user of a request."""
    return caused_by(Cause.RESCORE, global_user_id, f"rescore:{request.rescore_id}", time_ms, request_id)


def request_for(request: RescoreRequest, global_user_id: str, time_ms: int) -> bytes:
    """The same request for one user alone, as a dead letter keeps it: sent again, it rescores that user."""
    return _encode(RescoreRequest(request.rescore_id, users=(global_user_id,), requested_at=time_ms))
