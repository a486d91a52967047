"""What a score becomes in the table and in the ARM cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .activity import format_time_ms
from .keys import LATEST_SK, arm_cache_key, causal_version, score_sk, user_pk
from .messages import ScoringMessage
from .scorecard import IMPORT_REASON_CODES, REASON_CODES, SCALE, VERIFICATION_REASON_CODES, ModelScore, Reason
from .traceparent import sampled_traceparent

_FEATURE_OF_CODE: dict[str, str] = {
    code: feature
    for codes in (REASON_CODES, IMPORT_REASON_CODES, VERIFICATION_REASON_CODES)
    for feature, code in codes.items()
}

STORED_REASONS = 5
"""Reasons kept with a score, the strongest first. ``otherPoints`` is the sum of the rest, so that base, reasons and
others still add up exactly to the score."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An entry of the ARM cache.

    Attributes:
        key: ``user:{globalUserId}``.
        version: orders entries of one key by the activity that caused them; the greater one stays.
        value: the reference's four fields, then ``modelVersion`` and ``reasons``, and ``traceparent`` where the score
            came about in a recorded trace.
    """

    key: str
    version: str
    value: Mapping[str, Any]


def score_item(message: ScoringMessage, score: ModelScore, worker: str, written_at_ms: int) -> dict[str, Any]:
    """The item of one score; the same activity and score always give the same keys.

    Args:
        message: the activity that caused it.
        score: what the model said.
        worker: the worker that scored.
        written_at_ms: the time of writing, epoch milliseconds; with ``requestId`` and ``traceparent`` (there where the
            trace is recorded) the only part that names the run.

    Returns:
        A JSON object with ``PK``, ``SK`` and the attributes ``docs/record-formats.md`` lists.
    """
    kept = score.reasons[:STORED_REASONS]
    item = {
        "PK": user_pk(message.global_user_id),
        "SK": score_sk(message.occurred_at, message.activity_id),
        "type": "score",
        "globalUserId": message.global_user_id,
        "activityId": message.activity_id,
        "activityType": message.activity_type,
        "occurredAt": format_time_ms(message.occurred_at),
        "accountScore": score.account_score,
        "armRisk": score.arm_risk,
        "bonScore": score.bon_score,
        "clusterId": None,
        "modelVersion": score.model_version,
        "reasons": [{"code": reason.code, "value": reason.value, "points": reason.points} for reason in kept],
        "baseScore": score.base_score,
        "otherPoints": _other_points(score),
        "requestId": message.request_id,
        "worker": worker,
        "dateUpdated": format_time_ms(written_at_ms),
    }
    return item if message.traceparent is None else _with_trace(item, message.traceparent)


def _with_trace(stored: dict[str, Any], traceparent: object) -> dict[str, Any]:
    """What is stored, with the trace it came about in where that is recorded."""
    trace = sampled_traceparent(traceparent)
    return stored if trace is None else {**stored, "traceparent": trace}


def _other_points(score: ModelScore) -> float:
    """The points of the reasons that are not stored, exact in hundredths."""
    return sum(round(reason.points * SCALE) for reason in score.reasons[STORED_REASONS:]) / SCALE


def latest_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """A score's item as the user's latest: the same under the fixed sort key ``LATEST``."""
    return {**item, "SK": LATEST_SK, "scoreSK": item["SK"]}


def version_of(message: ScoringMessage, generation: int = 0, results: int = 0) -> str:
    """The version of everything this activity causes under the imports and check results known; see causal_version."""
    return causal_version(message.occurred_at, message.activity_id, generation, results)


def cache_entry(item: Mapping[str, Any], version: str, time_ms: int) -> CacheEntry:
    """The ARM cache's entry for a score.

    Args:
        item: the score's item.
        version: of the entry.
        time_ms: when what caused the score happened, epoch milliseconds.
    """
    value = {
        "global_user_id": item["globalUserId"],
        "arm_risk": item["armRisk"],
        "timestamp": time_ms,
        "score_date": item["occurredAt"][:10],
        "modelVersion": item["modelVersion"],
        "reasons": [reason["code"] for reason in item["reasons"]],
    }
    return CacheEntry(arm_cache_key(item["globalUserId"]), version, _with_trace(value, item.get("traceparent")))


def stored_reasons(item: Mapping[str, Any]) -> list[Reason]:
    """A stored score's reasons, the model's and all others, the strongest first, as ``describe`` takes them."""
    reasons = [
        Reason(code, _FEATURE_OF_CODE.get(code, code), entry["value"], entry["points"])
        for entry in item["reasons"]
        for code in [str(entry["code"])]
    ]
    return sorted(reasons, key=lambda reason: -abs(reason.points))
