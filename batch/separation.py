"""How well the scores tell known bots from known fans: for simulated sales, whose labels are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ..domain.metrics import precision_at, roc_auc
from ..io.errors import BackendUnavailableError, UsageError
from .summary import Summary

FAN: Final = "fan"
"""The kind of users who are no bot; every other kind is one of bots."""

_CURVE_POINTS: Final = 200


@dataclass(frozen=True)
class Separation:
    """Scores held against the truth. Only users with both a score and a label count.

    Attributes:
        users: how many, fans and bots together.
        bots: how many of them are bots.
        unscored: labelled users without a score; they are in no other figure.
        roc_auc: how often a random bot ranks as riskier than a random fan; a tie counts half. 0.5 is guessing.
        precision_at_1_percent: share of bots among the riskiest 1 % of users.
        auc_by_kind: ``roc_auc`` of the bots of one kind against all fans, by kind, the hardest kind first.
        bots_by_kind: how many bots of each kind.
        roc_curve: (share of fans flagged, share of bots caught) at falling strictness, from (0, 0) to (1, 1);
            at most 200 points of the exact curve.
        is_bot: by user id.
        kinds: ``fan`` or the kind of bot, by user id.
    """

    users: int
    bots: int
    unscored: int
    roc_auc: float
    precision_at_1_percent: float
    auc_by_kind: Mapping[str, float]
    bots_by_kind: Mapping[str, int]
    roc_curve: Sequence[tuple[float, float]]
    is_bot: Mapping[str, bool]
    kinds: Mapping[str, str]


class _Label(msgspec.Struct, rename="camel", frozen=True):
    global_user_id: str
    kind: str


_decoder = msgspec.json.Decoder(_Label)


def read_labels(path: Path) -> dict[str, str]:
    """Reads who is what from a labels file, as ``simulate.write_simulation`` writes it.

    Returns:
        ``fan`` or the kind of bot, by user id.

    Raises:
        UsageError: there is no such file, or a line of it is no label.
        BackendUnavailableError: the file cannot be read.
    """
    kinds: dict[str, str] = {}
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                label = _label(line, f"{path}, line {number}")
                kinds[label.global_user_id] = label.kind
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"labels: no such file: {path}") from None
    except OSError as error:
        raise BackendUnavailableError(f"labels: cannot read {path}: {error.strerror}") from None
    return kinds


def _label(line: bytes, place: str) -> _Label:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UsageError(f"labels: {place}: not a JSON object with globalUserId and kind") from None


def separate(summary: Summary, kinds: Mapping[str, str]) -> Separation:
    """Holds the scores of a store against the truth.

    Users are ranked by account score, the lowest first: the bot-or-not score falls with it and is rounded, so the
    account score tells users apart that the bot-or-not score no longer does.

    Args:
        summary: the users by their latest score.
        kinds: ``fan`` or the kind of bot, by user id; users who are not in it do not count.

    Raises:
        UsageError: no fan or no bot has a score: there is nothing to tell apart.
    """
    known = {user: kind for user, kind in kinds.items() if user in summary.latest}
    risks = {user: -float(summary.latest[user]["accountScore"]) for user in known}
    fans = [risk for user, risk in risks.items() if known[user] == FAN]
    bots: dict[str, list[float]] = {}
    for user, kind in known.items():
        if kind != FAN:
            bots.setdefault(kind, []).append(risks[user])
    if not fans or not bots:
        raise UsageError(f"labels: no {'bot' if fans else 'fan'} has a score, so there is nothing to tell apart")
    labels = [kind != FAN for kind in known.values()]
    scores = list(risks.values())
    by_kind = {
        kind: roc_auc([True] * len(of_kind) + [False] * len(fans), of_kind + fans) for kind, of_kind in bots.items()
    }
    hardest_first = sorted(by_kind, key=lambda kind: (by_kind[kind], kind))
    return Separation(
        users=len(known),
        bots=sum(labels),
        unscored=len(kinds) - len(known),
        roc_auc=roc_auc(labels, scores),
        precision_at_1_percent=precision_at(labels, scores, 0.01),
        auc_by_kind={kind: by_kind[kind] for kind in hardest_first},
        bots_by_kind={kind: len(bots[kind]) for kind in hardest_first},
        roc_curve=_roc_curve(labels, scores),
        is_bot={user: kind != FAN for user, kind in known.items()},
        kinds=known,
    )


def _roc_curve(labels: Sequence[bool], scores: Sequence[float]) -> list[tuple[float, float]]:
    positives = sum(labels)
    negatives = len(labels) - positives
    ranked = sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])
    # Both shares only grow, so a step of this much of their sum leaves at most _CURVE_POINTS points.
    step = 2 / (_CURVE_POINTS - 2)
    curve = [(0.0, 0.0)]
    caught = 0
    for index, (score, is_bot) in enumerate(ranked):
        caught += is_bot
        if index + 1 < len(ranked) and ranked[index + 1][0] == score:
            continue  # a threshold takes all of a tie or none
        point = ((index + 1 - caught) / negatives, caught / positives)
        if sum(point) - sum(curve[-1]) >= step:
            curve.append(point)
    if curve[-1] != (1.0, 1.0):
        curve.append((1.0, 1.0))
    return curve
