"""What looking for identity checks costs a scoring worker: the steps of scoring with it and without, in turns.

``python -m fan_identity.benchmarks.verifications`` works on SQLite; with ``--tables dynamodb://{}?region=…&endpoint=…``
on DynamoDB tables it makes, the name in place of ``{}``.
"""

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..domain.arai import Arai
from ..domain.messages import Cause, caused_by
from ..domain.profile import FEATURES, Profile
from ..domain.records import Batch
from ..domain.verification import Status, Verification, verification_item
from ..io.addresses import parse_address
from ..io.backends import open_table
from ..io.dynamodb.table import DynamoDbTable
from ..io.fan_verifications import FanVerifications, add_verifications, write_newest
from ..io.model import EmbeddedModel
from ..io.persisting import persist
from ..io.ports import ReceivedMessage, Table
from ..io.steps import Profiled, score_users

USERS: Final = 5_000
BATCH: Final = 500
SHARES: Final = ((0.0, False), (0.05, False), (1.0, False), (0.05, True), (1.0, True))
"""Of fans whose identity was checked, and whether all of them have begun another check since, which is under way."""

_NOON: Final = 1_795_780_800_000


def main() -> None:
    """Prints milliseconds a batch with and without, for each share of fans who were checked or begin anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", help="addresses of tables to make, with {} for the name; SQLite where left out")
    parser.add_argument("--rounds", type=int, default=11, help="alternating rounds")
    arguments = parser.parse_args()
    print(f"{USERS:,} fans, batches of {BATCH}, {arguments.rounds} alternating rounds, medians; milliseconds a batch")
    print(f"{'checked':>8}{'pending':>9}{'without':>10}{'with':>10}{'look-up':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for share, pending in SHARES:
            name = uuid.uuid4().hex[:8]
            fans = _table(arguments.tables, f"fans-{name}", Path(folder))
            checks = _table(arguments.tables, f"checks-{name}", Path(folder))
            _measure(share, fans, checks, arguments.rounds, pending=pending)


def _table(address: str | None, name: str, folder: Path) -> Table:
    if address is None:
        return open_table(f"sqlite:///{folder}/{name}.db", "table", name)
    text = address.replace("{}", name)
    DynamoDbTable.of(parse_address(text, "tables"), "tables").create()
    return open_table(text, "tables", name)


def _measure(share: float, fans: Table, checks: Table, rounds: int, *, pending: bool) -> None:
    users = [f"fan-{number:05d}" for number in range(USERS)]
    checked = users[: round(share * USERS)]
    results = [
        Verification("v", user, Status.PASSED if number % 2 else Status.FAILED, _NOON - 2)
        for number, user in enumerate(checked)
    ]
    if pending:
        results += [Verification("w", user, Status.PENDING, _NOON - 1) for user in checked]
    checks.batch_put([verification_item(each, _NOON) for each in results])
    write_newest(checks, checked)
    verifications = FanVerifications(checks)
    without, with_checks, looking = list[float](), list[float](), list[float]()
    for number in range(rounds):
        turns: list[tuple[FanVerifications | None, list[float]]] = [(None, without), (verifications, with_checks)]
        for turn, (used, times) in enumerate(turns if number % 2 else reversed(turns)):
            # Newer each time, so that every turn writes what the one before did.
            batches = _batches(users, _NOON + 2 * number + turn)
            times.append(_timed(lambda used=used, batches=batches: _score(batches, used, fans)) / len(batches))
        looked = _batches(users, _NOON)
        looking.append(_timed(lambda batches=looked: _look(batches, verifications)) / len(looked))
    plain, more = statistics.median(without), statistics.median(with_checks)
    told = f"{share:>8.0%}{'yes' if pending else 'no':>9}{plain:>10.1f}{more:>10.1f}"
    print(f"{told}{statistics.median(looking):>10.2f}{more / plain:>8.3f}")


def _batches(users: list[str], time_ms: int) -> list[Batch[Profiled]]:
    arai = Arai(Profile(time_ms, (1.0,) * len(FEATURES)))
    messages = [
        Profiled(ReceivedMessage("", user, b"", 1, "m"), caused_by(Cause.ON_DEMAND, user, "a", time_ms, "r"), arai)
        for user in users
    ]
    return [Batch("r", "q", messages[at : at + BATCH]) for at in range(0, len(messages), BATCH)]


def _score(batches: list[Batch[Profiled]], verifications: FanVerifications | None, fans: Table) -> None:
    model = EmbeddedModel.packaged()
    for batch in batches:
        scored = score_users(add_verifications(batch, verifications), model, "scoreUsers")
        persist(scored, fans, None, None, "scoreUsers", _uncounted)


def _uncounted(name: str, number: int) -> None:
    del name, number


def _look(batches: list[Batch[Profiled]], verifications: FanVerifications) -> None:
    for batch in batches:
        add_verifications(batch, verifications)


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1_000


if __name__ == "__main__":
    main()
