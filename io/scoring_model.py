"""A scoring model behind HTTP: asked for one user a call, or for many where the server takes batches.

Single: ``POST`` a request object, answered by a score object. Batch (``?batch=64``): ``POST {"requests": […]}``,
answered by ``{"scores": […]}`` of the same length and order, where a score may be ``{"error": "…"}`` instead. Both
objects are described in ``docs/sandbox.md``, and ``fan-identity sandbox`` serves them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from ..domain.activity import format_time_ms
from ..domain.profile import FEATURES
from ..domain.records import Failure
from ..domain.scorecard import SCALE, ModelScore, Reason
from .addresses import int_option, parse_address
from .caller import RefusedError, TransientError
from .http_json import JsonApi
from .ports import ScoringRequest

MAX_BATCH: Final = 1_000
"""Users a call at most."""

MAX_BATCH_BYTES: Final = 1_000_000
"""A call's body stays below this, but for a single request that is itself larger."""

REST: Final = "OTHER"
"""Code of the reason for what a model did not explain: its reasons need not add up to the score, ours do."""

_MAX_REASONS: Final = 1_000
_INTERNAL_ERROR: Final = 500

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Points = Annotated[float, msgspec.Meta(ge=-1_000, le=1_000)]
_Score = Annotated[float, msgspec.Meta(ge=0, le=100)]


class _WireReason(msgspec.Struct, rename="camel", gc=False):
    code: _Text
    points: _Points
    value: float | None = None


class _WireScore(msgspec.Struct, rename="camel"):
    account_score: _Score
    arm_risk: Annotated[int, msgspec.Meta(ge=1, le=5)]
    bon_score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    model_version: _Text
    reasons: Annotated[list[_WireReason], msgspec.Meta(max_length=_MAX_REASONS)] = []
    base_score: Annotated[float, msgspec.Meta(ge=-1_000, le=1_000)] | None = None


class _WireBatch(msgspec.Struct):
    scores: list[msgspec.Raw]


class _WireError(msgspec.Struct):
    error: str


_score_decoder: Final = msgspec.json.Decoder(_WireScore)
_batch_decoder: Final = msgspec.json.Decoder(_WireBatch)
_error_decoder: Final = msgspec.json.Decoder(_WireError)
_encoder: Final = msgspec.json.Encoder()


@dataclass
class _Call:
    """One call: requests of some users.

    Attributes:
        numbers: the users' places in the batch.
        bodies: their request objects.
        correlation_id: of the first.
        suspect: the last attempt failed in a way that one of the users may have caused: no answer in time, or 500.
    """

    numbers: Sequence[int]
    bodies: Sequence[bytes]
    correlation_id: str
    suspect: bool = False


@dataclass(frozen=True)
class HttpScoringModel:
    """Scores by a model server. Pickles; holds no connection.

    Attributes:
        api: the server.
        batch: users a call; None where the server takes one user a call.
    """

    api: JsonApi
    batch: int | None = None

    @classmethod
    def of(cls, text: str, setting: str, *, service: str = "model") -> "HttpScoringModel":
        """The model of an address ``https://model/score?batch=64``.

        Args:
            text: the address; options are ``batch`` and those of ``HTTP_OPTIONS``.
            setting: where it came from, for errors.
            service: its name, in reasons and in the token's variable ``FAN_IDENTITY_MODEL_TOKEN``.

        Raises:
            UsageError: naming what is wrong with the address.
        """
        api = JsonApi.of(text, setting, service, options=frozenset({"batch"}))
        batch = int_option(parse_address(text, setting), setting, "batch", 0)
        return cls(api, min(batch, MAX_BATCH) or None)

    def score(self, requests: Sequence[ScoringRequest]) -> list[ModelScore | Failure]:
        """Scores users, each with an outcome of its own, in order.

        A batch whose answer cannot be told apart into users (no JSON, a wrong length), or that was refused or failed as
        one bad user could make it fail, is asked again one by one, so that only the culprit fails.

        Returns:
            For each a checked score, or a Failure: ``model_unavailable`` (retryable), ``model_invalid`` (the answer is
            no score), ``model_refused`` (another status), ``model_error`` (the model says it cannot score this user).
        """
        outcomes: dict[int, ModelScore | Failure] = {}
        bodies = [request_body(request) for request in requests]
        calls = [self._call_of(requests, bodies, numbers) for numbers in _chunks(bodies, self.batch or 1)]
        again: list[int] = []
        for call, outcome in zip(calls, self.api.caller.map(calls, self._ask), strict=True):
            if isinstance(outcome, Failure):
                if len(call.numbers) > 1 and (call.suspect or not outcome.retryable):
                    again += call.numbers
                else:
                    outcomes.update(dict.fromkeys(call.numbers, outcome))
            else:
                outcomes.update(zip(call.numbers, outcome, strict=True))
        singles = [self._call_of(requests, bodies, [number]) for number in again]
        for number, outcome in zip(again, self.api.caller.map(singles, self._ask), strict=True):
            outcomes[number] = outcome if isinstance(outcome, Failure) else outcome[0]
        return [outcomes[number] for number in range(len(requests))]

    def _call_of(self, requests: Sequence[ScoringRequest], bodies: Sequence[bytes], numbers: Sequence[int]) -> _Call:
        first = requests[numbers[0]].message
        return _Call(numbers, [bodies[number] for number in numbers], first.request_id)

    async def _ask(self, call: _Call) -> list[ModelScore | Failure]:
        call.suspect = True
        body = call.bodies[0] if self.batch is None else b'{"requests":[%b]}' % b",".join(call.bodies)
        try:
            answer = await self.api.post("", body, call.correlation_id)
        except TransientError as error:
            call.suspect = error.status == _INTERNAL_ERROR
            raise
        scores = [answer] if self.batch is None else self._split(answer, len(call.numbers))
        return [self._outcome(score) for score in scores]

    def _split(self, answer: bytes, expected: int) -> Sequence[bytes]:
        try:
            scores = _batch_decoder.decode(answer).scores
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise self.api.invalid("the answer is not JSON with a list of scores") from None
        if len(scores) != expected:
            raise self.api.invalid(f"{len(scores)} scores for {expected} users")
        return [bytes(score) for score in scores]

    def _outcome(self, answer: bytes) -> ModelScore | Failure:
        try:
            return parse_score(answer)
        except ValueError as error:
            try:
                _error_decoder.decode(answer)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                invalid: RefusedError = self.api.invalid(str(error))
                return Failure(invalid.reason, str(invalid))
        # What it says may repeat the user's data.
        return Failure(f"{self.api.service}_error", f"{self.api.service}: it cannot score this activity")


def request_body(request: ScoringRequest) -> bytes:
    """The JSON object a model is asked with.

    ``{"globalUserId", "activity": {…}, "activityType", "occurredAt": ISO 8601, "arai": {…}, "features": {name: number
    or null}}``; ``activity`` is the original one, ``arai`` the Accounts service's answer. ``"verification": {"status",
    "occurredAt"}`` besides where the user's identity was checked as of the activity: PASSED or FAILED.
    """
    message, verification = request.message, request.verification
    body: dict[str, Any] = {
        "globalUserId": message.global_user_id,
        "activity": message.activity,
        "activityType": message.activity_type,
        "occurredAt": format_time_ms(message.occurred_at),
        "arai": request.arai.response,
        "features": dict(zip(FEATURES, request.arai.profile.values, strict=True)),
    }
    if verification is not None:
        body["verification"] = {
            "status": verification.status.value,
            "occurredAt": format_time_ms(verification.time_ms),
        }
    return _encoder.encode(body)


def parse_score(answer: bytes) -> ModelScore:
    """Reads a model's score object, strictly.

    Points are rounded to hundredths. Where the base and the reasons do not add up to the score, as with a model that
    names the strongest reasons only, a reason ``OTHER`` makes up the difference; without a base there is none to make
    up, since the base is then what remains.

    Raises:
        ValueError: it is no score; the message names the field, never its value.
    """
    try:
        wire = _score_decoder.decode(answer)
    except msgspec.ValidationError as error:
        raise ValueError(f"no score: {error}") from None
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise ValueError("the answer is not JSON") from None
    if not all(text.isprintable() for text in (wire.model_version, *(reason.code for reason in wire.reasons))):
        raise ValueError("no score: a name holds control characters")
    total = round(wire.account_score * SCALE)
    reasons = [Reason(reason.code, reason.code, reason.value, _hundredths(reason.points)) for reason in wire.reasons]
    explained = sum(round(reason.points * SCALE) for reason in reasons)
    base = total - explained if wire.base_score is None else round(wire.base_score * SCALE)
    if rest := total - explained - base:
        reasons.append(Reason(REST, REST, None, rest / SCALE))
    reasons.sort(key=lambda reason: -abs(reason.points))
    return ModelScore(
        account_score=total / SCALE,
        arm_risk=wire.arm_risk,
        bon_score=round(wire.bon_score, 4),
        base_score=base / SCALE,
        reasons=tuple(reasons),
        model_version=wire.model_version,
    )


def _hundredths(points: float) -> float:
    return round(points * SCALE) / SCALE


def _chunks(bodies: Sequence[bytes], most: int) -> list[list[int]]:
    """The places of the bodies, up to ``most`` and ``MAX_BATCH_BYTES`` together."""
    chunks: list[list[int]] = []
    size = 0
    for number, body in enumerate(bodies):
        size += len(body) + 1
        if not chunks or len(chunks[-1]) >= most or size > MAX_BATCH_BYTES:
            chunks.append([])
            size = len(body) + 1
        chunks[-1].append(number)
    return chunks


def score_object(score: ModelScore) -> dict[str, Any]:
    """The score object of a score, as ``parse_score`` reads it; for servers of the protocol."""
    return {
        "accountScore": score.account_score,
        "armRisk": score.arm_risk,
        "bonScore": score.bon_score,
        "baseScore": score.base_score,
        "modelVersion": score.model_version,
        "reasons": [{"code": reason.code, "value": reason.value, "points": reason.points} for reason in score.reasons],
    }
