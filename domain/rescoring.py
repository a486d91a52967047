"""Rescore requests: users to score again though nothing new happened."""

from collections.abc import Mapping
from typing import Any

import msgspec

from .activity import MalformedRecordError, parse_time_ms
from .messages import Cause, ScoringMessage, caused_by

MAX_USERS = 100_000


class RescoreRequest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A message of the rescore queue. Exactly one of ``users``, ``cluster_id`` and ``model_version`` is set.

    Attributes:
        rescore_id: names the request: sent again, it causes the same score items.
        users: their global user ids.
        cluster_id: everyone whose latest score is of this cluster.
        model_version: everyone whose latest score was made by this model.
        requested_at: epoch milliseconds or ISO 8601; the time of the scores. The message's sending time where None.
    """

    rescore_id: str
    users: tuple[str, ...] | None = None
    cluster_id: str | None = None
    model_version: str | None = None
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
    if not request.rescore_id.strip():
        raise MalformedRecordError("rescoreId is blank")
    ways = (request.users, request.cluster_id, request.model_version)
    if sum(way is not None for way in ways) != 1:
        raise MalformedRecordError("a rescore request has one of users, clusterId and modelVersion")
    if request.users is not None and len(request.users) > MAX_USERS:
        raise MalformedRecordError(f"a rescore request names {MAX_USERS} users at most")
    if request.users is not None and not all(user.strip() for user in request.users):
        raise MalformedRecordError("a user is blank")
    if request.requested_at is not None:
        parse_time_ms(request.requested_at)
    return request


def selects(request: RescoreRequest, latest: Mapping[str, Any]) -> bool:
    """Whether a user is meant by cluster or model version.

    Args:
        request: without ``users``.
        latest: the user's ``LATEST`` item.
    """
    if request.cluster_id is not None:
        return latest.get("clusterId") == request.cluster_id
    return latest.get("modelVersion") == request.model_version


def rescore_time_ms(request: RescoreRequest, sent_at_ms: int) -> int:
    """The time of the request's scores, epoch milliseconds."""
    return sent_at_ms if request.requested_at is None else parse_time_ms(request.requested_at)


def rescore_message(request: RescoreRequest, global_user_id: str, time_ms: int, request_id: str) -> ScoringMessage:
    """What scores one user of a request."""
    return caused_by(Cause.RESCORE, global_user_id, f"rescore:{request.rescore_id}", time_ms, request_id)


def request_for(request: RescoreRequest, global_user_id: str, time_ms: int) -> bytes:
    """The same request for one user alone, as a dead letter keeps it: sent again, it rescores that user."""
    return _encode(RescoreRequest(request.rescore_id, users=(global_user_id,), requested_at=time_ms))
