"""Trains the embedded scorecard on simulated sales and writes its model file.

    python -m fan_identity.batch.train_scorecard [--out io/scorecard.json]

Needs the development dependencies (scikit-learn, SciPy). The same code writes the same bytes on every run. Sales are
seen in two ways: as the stream delivers them, and as a web server's log would show them (whole seconds, no accounts
or devices, one "user" per network address), so that the model does not lean on what only one of them has.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import numpy as np
import numpy.typing as npt

from ..domain.activity import TYPE_INDEX, MalformedRecordError, decode_activity
from ..domain.profile import FEATURES, PROFILE_WINDOW, ActivityFacts, Profile, facts_of, profiles_at
from ..domain.scorable import ScorableRules, rejection
from ..domain.scorecard import ARM_LEVELS, SCALE, Calibration, Scorecard, ScorecardFile
from .personas import BOT_PERSONAS, HOUR
from .scorecard_fit import Floats, Points, Rows, fit_points
from .simulate import INTERNAL_ACCOUNTS, SaleSettings, Simulation, simulate

MODEL_VERSION: Final = "embedded-scorecard-1"
PENALTY: Final = 3e-3
WEB_LOG_WEIGHT: Final = 1.0
"""How much a row of the web-log view counts beside one of the stream."""

FAN_SHARES_BELOW: Final = (0.40, 0.12, 0.03, 0.006)
"""The share of fans whose last score lies below each ARM threshold, on the calibration sale."""

_POSITIONS: Final = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 1_000)

_EVEN_BOTS: Final = dict.fromkeys(BOT_PERSONAS, 1.0)

TRAINING_SALES: Final = (
    SaleSettings(fans=4_000, bots=800, seed=101),
    SaleSettings(fans=3_000, bots=600, seed=102, fan_mix={"eager-fan": 3, "power-fan": 1, "planner": 1}),
    SaleSettings(fans=3_000, bots=600, seed=103, bot_mix={"searcher": 3, "stealth": 1}),
    SaleSettings(fans=4_000, bots=500, seed=104, bot_mix=_EVEN_BOTS, opens_after_ms=4 * HOUR),
    SaleSettings(fans=2_000, bots=500, seed=105, fan_mix={"casual-browser": 3, "night-owl": 1, "fumbler": 1}),
    SaleSettings(fans=1_500, bots=400, seed=106, bot_mix=_EVEN_BOTS, opens_after_ms=20 * HOUR, lasts_ms=72 * HOUR),
)

_WEB_ASSETS: Final = {0: 1.0, 2: 2.0, 6: 3.0, 15: 2.0}
_WEB_FANS: Final = {"casual-browser": 6.0, "night-owl": 2.0, "power-fan": 1.0, "eager-fan": 1.0}
_WEB_BOTS: Final = {"searcher": 3.0, "prober": 2.0, "stealth": 1.0, "credential-stuffing": 0.5}

WEB_LOG_SALES: Final = (
    SaleSettings(fans=3_000, bots=600, seed=111, assets_a_page=_WEB_ASSETS, lasts_ms=72 * HOUR),
    SaleSettings(
        fans=3_000,
        bots=600,
        seed=112,
        assets_a_page=_WEB_ASSETS,
        fan_mix=_WEB_FANS,
        bot_mix=_WEB_BOTS,
        lasts_ms=96 * HOUR,
    ),
)
CALIBRATION_SALE: Final = SaleSettings(fans=10_000, bots=500, seed=201)
EVALUATION_SALES: Final = (
    SaleSettings(fans=10_000, bots=500, seed=202),
    SaleSettings(fans=5_000, bots=500, seed=203, fan_mix={"eager-fan": 2, "power-fan": 1}, bot_mix=_EVEN_BOTS),
)
WEB_LOG_EVALUATION_SALE: Final = SaleSettings(
    fans=5_000, bots=500, seed=204, assets_a_page=_WEB_ASSETS, fan_mix=_WEB_FANS, bot_mix=_WEB_BOTS, lasts_ms=96 * HOUR
)


@dataclass(frozen=True, slots=True)
class LabelledUser:
    """A user's scorable activities in order, and what the user is: ``fan`` or the kind of bot."""

    history: list[ActivityFacts]
    kind: str


def labelled_users(simulation: Simulation, now_ms: int) -> list[LabelledUser]:
    """Takes a simulated stream apart as the product does: decode, reject, drop what was sent twice, sort."""
    rules = ScorableRules(now_ms, horizon_ms=30 * 24 * HOUR, internal_accounts=frozenset(INTERNAL_ACCOUNTS))
    users: dict[str, set[ActivityFacts]] = defaultdict(set)
    for line in simulation.lines:
        try:
            activity = decode_activity(line)
            time_ms = activity.time_ms
        except MalformedRecordError:
            continue
        user = activity.global_user_id
        if user in simulation.kinds and rejection(activity, time_ms, rules) is None:
            users[user].add(facts_of(activity, time_ms))
    return [LabelledUser(sorted(users[user]), simulation.kinds[user]) for user in sorted(users)]


def users_of(sale: SaleSettings) -> list[LabelledUser]:
    """Simulates a sale and takes it apart."""
    return labelled_users(simulate(sale), sale.end_ms)


def as_web_log(users: Iterable[LabelledUser]) -> list[LabelledUser]:
    """The same traffic as a web server's log shows it.

    Times are whole seconds, requests are pages, searches or assets, devices and events are unknown, and a "user" is
    a network address: a bot where most of the address's requests are a bot's. Addresses of under three requests are
    left out: nothing in them tells a bot of many addresses from a visitor.
    """
    shown = {TYPE_INDEX[kind] for kind in ("assetView", "search", "pageView")}
    requests: dict[int, list[tuple[ActivityFacts, str]]] = defaultdict(list)
    for user in users:
        for facts in user.history:
            kind = facts.type_index if facts.type_index in shown else TYPE_INDEX["pageView"]
            second = facts.time_ms // 1_000 * 1_000
            request = facts._replace(time_ms=second, type_index=kind, device=0, event=0)
            requests[facts.address].append((request, user.kind))
    return [
        LabelledUser(sorted(facts for facts, _ in found), Counter(kind for _, kind in found).most_common(1)[0][0])
        for _, found in sorted(requests.items())
        if len(found) >= 3  # noqa: PLR2004
    ]


def sampled_profiles(user: LabelledUser) -> list[Profile]:
    """Profiles as of the user's 1st, 2nd, 3rd, 5th, 8th … and last activity."""
    history = user.history
    positions = sorted({*(position for position in _POSITIONS if position < len(history)), len(history)})
    found = profiles_at(history, [history[position - 1][:2] for position in positions])
    return list(found.values())


def last_profile(user: LabelledUser) -> Profile:
    """The profile as of the user's last activity."""
    key = user.history[-1][:2]
    return profiles_at(user.history[-PROFILE_WINDOW:], [key])[key]


def training_rows(users: Sequence[LabelledUser], weight: float = 1.0) -> Rows:
    """Rows of sampled profiles; a user's rows weigh ``weight`` together, so that busy users do not drown the others."""
    values: list[list[float]] = []
    is_fan: list[float] = []
    weights: list[float] = []
    for user in users:
        profiles = sampled_profiles(user)
        for profile in profiles:
            values.append([float("nan") if value is None else value for value in profile.values])
            is_fan.append(float(user.kind == "fan"))
            weights.append(weight / len(profiles))
    return Rows(np.array(values), np.array(is_fan), np.array(weights))


def all_training_rows() -> Rows:
    """Rows of all training sales, each in its view."""
    parts = [training_rows(users_of(sale)) for sale in TRAINING_SALES]
    parts += [training_rows(as_web_log(users_of(sale)), WEB_LOG_WEIGHT) for sale in WEB_LOG_SALES]
    return Rows(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.is_fan for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


def calibrated(points: Points, users: Sequence[LabelledUser]) -> ScorecardFile:
    """Adds ARM thresholds and the calibration of ``bon_score`` (Platt) from a sale not trained on."""
    draft = ScorecardFile(MODEL_VERSION, "draft", points.base, (4, 3, 2, 1), Calibration(0.0, -1.0), points.features)
    card = Scorecard(draft)
    last = np.array([card.score(last_profile(user)).account_score for user in users])
    is_fan = np.array([user.kind == "fan" for user in users])
    thresholds = tuple(round(float(np.quantile(last[is_fan], share)) * SCALE) for share in FAN_SHARES_BELOW)
    scores: list[float] = []
    is_bot: list[bool] = []
    weights: list[float] = []
    for user in users:
        profiles = sampled_profiles(user)
        scores += [card.score(profile).account_score for profile in profiles]
        is_bot += [user.kind != "fan"] * len(profiles)
        weights += [1 / len(profiles)] * len(profiles)
    calibration = _platt(np.array(scores), np.array(is_bot, dtype=np.float64), np.array(weights))
    return msgspec.structs.replace(draft, arm_thresholds=thresholds, calibration=calibration)


def _platt(scores: Floats, is_bot: Floats, weights: Floats) -> Calibration:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  # pyright: ignore

    model: Any = LogisticRegression(C=1e6, tol=1e-10, max_iter=1_000)
    model.fit((scores - 50).reshape(-1, 1) / 10, is_bot, sample_weight=weights)
    slope = float(model.coef_[0][0]) / 10
    return Calibration(round(float(model.intercept_[0]) - 50 * slope, 4), round(slope, 5))


def figures(card: Scorecard, users: Sequence[LabelledUser]) -> dict[str, Any]:
    """What the model reaches on users it has not seen. Shares and AUCs have three or four decimals.

    Returns:
        ROC AUC of the last score (overall and by kind of bot against all fans), AUC after the 3rd and the 10th
        activity, precision among the riskiest 1 % of users, calibration of ``bon_score`` in steps, the share of fans
        and of bots at each ARM risk, and quartiles of the account score.
    """
    last = [card.score(last_profile(user)) for user in users]
    risk = np.array([-score.account_score for score in last])
    bon = np.array([score.bon_score for score in last])
    kinds = np.array([user.kind for user in users])
    is_bot = kinds != "fan"
    top = np.argsort(-bon, kind="stable")[: max(1, len(users) // 100)]
    report: dict[str, Any] = {
        "fans": int((~is_bot).sum()),
        "bots": int(is_bot.sum()),
        "rocAuc": _auc(is_bot, risk),
        "rocAucByKind": {
            kind: _auc(is_bot[chosen], risk[chosen])
            for kind in sorted(set(kinds[is_bot].tolist()))
            for chosen in ((kinds == kind) | ~is_bot,)
        },
    }
    for position in (3, 10):
        known = [user for user in users if len(user.history) >= position]
        early = [
            -card.score(last_profile(LabelledUser(user.history[:position], user.kind))).account_score for user in known
        ]
        report[f"rocAucAfter{position}"] = _auc(np.array([user.kind != "fan" for user in known]), np.array(early))
    report["precisionAt1Percent"] = round(float(is_bot[top].mean()), 3)
    report["calibration"] = [
        {
            "bonScore": f"{low:g}-{high:g}",
            "users": int(chosen.sum()),
            "mean": _mean(bon[chosen]),
            "bots": _mean(is_bot[chosen]),
        }
        for low, high in ((0, 0.02), (0.02, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1))
        for chosen in ((bon >= low) & ((bon < high) | (high == 1)),)
        if chosen.any()
    ]
    for name, group in (("fan", ~is_bot), ("bot", is_bot)):
        arms = [score.arm_risk for score, chosen in zip(last, group, strict=True) if chosen]
        report[f"{name}ArmShares"] = {
            str(level): round(arms.count(level) / len(arms), 4) for level in range(1, ARM_LEVELS + 1)
        }
        quartiles = np.quantile(-risk[group], (0.01, 0.25, 0.5, 0.75, 0.99))
        report[f"{name}AccountScores"] = [round(float(value), 1) for value in quartiles]
    return report


def _mean(values: npt.NDArray[Any]) -> float:
    return round(float(np.mean(values)), 3)


def _auc(is_bot: npt.NDArray[Any], risk: npt.NDArray[Any]) -> float:
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415  # pyright: ignore

    return round(float(cast("Any", roc_auc_score)(is_bot, risk)), 4)


def train() -> ScorecardFile:
    """Trains, calibrates and evaluates; about a minute on one core."""
    rows = all_training_rows()
    points = fit_points(rows, penalty=PENALTY)
    file = calibrated(points, users_of(CALIBRATION_SALE))
    card = Scorecard(file)
    held_out = {f"sale{sale.seed}": figures(card, users_of(sale)) for sale in EVALUATION_SALES}
    web_log = as_web_log(users_of(WEB_LOG_EVALUATION_SALE))
    held_out[f"webLog{WEB_LOG_EVALUATION_SALE.seed}"] = figures(card, web_log)
    return msgspec.structs.replace(
        file,
        description="Additive scorecard over account-activity profiles, trained on simulated sales only.",
        training={
            "script": "python -m fan_identity.batch.train_scorecard",
            "trainingSeeds": [sale.seed for sale in TRAINING_SALES],
            "webLogSeeds": [sale.seed for sale in WEB_LOG_SALES],
            "calibrationSeed": CALIBRATION_SALE.seed,
            "rows": len(rows.is_fan),
            "l2Penalty": PENALTY,
            "hundredthsPerLogit": round(points.per_logit, 1),
        },
        figures=held_out,
    )


def to_json(file: ScorecardFile) -> bytes:
    """The model file's bytes: indented, features in the order of ``FEATURES``."""
    ordered = msgspec.structs.replace(file, features={name: file.features[name] for name in FEATURES})
    text = json.dumps(msgspec.to_builtins(ordered), indent=2)
    # Lists of numbers on one line each, so that a feature's bins can be read as rows.
    one_line = re.sub(
        r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text
    )
    return one_line.encode() + b"\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains and writes the model file, and prints the figures."""
    parser = argparse.ArgumentParser(description="Train the embedded scorecard on simulated sales.")
    parser.add_argument("--out", type=Path, default=Path("io/scorecard.json"), help="where the model file goes")
    options = parser.parse_args(arguments)
    file = train()
    out: Path = options.out
    out.write_bytes(to_json(file))
    sys.stdout.write(json.dumps({"armThresholds": file.arm_thresholds, **file.training, **file.figures}, indent=1))
    sys.stdout.write(f"\nwrote {out}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
