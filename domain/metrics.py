"""How well scores tell bots from fans, where it is known (or guessed) who is one."""

import math
from collections.abc import Sequence
from itertools import groupby


def roc_auc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """The chance that a randomly drawn bot has a greater score than a randomly drawn fan; a tie counts half.

    The area under the ROC curve, from ranks (Mann-Whitney U), in O(n log n).

    Args:
        labels: True for a bot.
        scores: one a label; greater means more bot-like.

    Returns:
        0 to 1; 0.5 where the scores say nothing.

    Raises:
        ValueError: lengths differ, a score is NaN, or all labels are the same.

    >>> roc_auc([True, False, False], [0.9, 0.9, 0.1])
    0.75
    """
    pairs = _pairs(labels, scores)
    bots = sum(1 for _, label in pairs if label)
    fans = len(pairs) - bots
    if not bots or not fans:
        raise ValueError("the area under the ROC curve needs bots and fans")
    # Twice the number of (bot, fan) pairs in the right order, a tie being one: whole numbers stay exact.
    doubled = 0
    fans_below = 0
    for _, tied in groupby(sorted(pairs), key=lambda pair: pair[0]):
        group = [label for _, label in tied]
        tied_bots = sum(group)
        tied_fans = len(group) - tied_bots
        doubled += tied_bots * (2 * fans_below + tied_fans)
        fans_below += tied_fans
    return doubled / (2 * bots * fans)


def precision_at(labels: Sequence[bool], scores: Sequence[float], share: float) -> float:
    """The share of bots among those with the greatest scores.

    Where the cut falls between equal scores, as many of them count as fit, with their average share of bots, so that
    the result does not depend on the order of the input.

    Args:
        labels: True for a bot.
        scores: one a label; greater means more bot-like.
        share: of all, 0 to 1, that are looked at: at least one.

    Returns:
        0 to 1.

    Raises:
        ValueError: lengths differ, a score is NaN, nothing is given, or ``share`` is not in (0, 1].

    >>> precision_at([True, False, True, False], [0.9, 0.8, 0.1, 0.2], 0.5)
    0.5
    """
    pairs = _pairs(labels, scores)
    if not pairs:
        raise ValueError("precision needs at least one score")
    if not 0 < share <= 1:
        raise ValueError("the share must be above 0 and at most 1")
    wanted = max(1, math.ceil(len(pairs) * share - 1e-9))  # 0.07 * 100 is a little above 7
    left = wanted
    bots = 0.0
    for _, tied in groupby(sorted(pairs, reverse=True), key=lambda pair: pair[0]):
        group = [label for _, label in tied]
        taken = min(left, len(group))
        bots += sum(group) * taken / len(group)
        left -= taken
        if not left:
            break
    return bots / wanted


def _pairs(labels: Sequence[bool], scores: Sequence[float]) -> list[tuple[float, bool]]:
    if len(labels) != len(scores):
        raise ValueError(f"{len(labels)} labels but {len(scores)} scores")
    if any(math.isnan(score) for score in scores):
        raise ValueError("a score is NaN")
    return [(float(score), bool(label)) for label, score in zip(labels, scores, strict=True)]
