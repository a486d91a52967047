"""Part 2: queue → score → DynamoDB and Redis, a model of 20 ms; beside a plain loop and the worker most would write."""

import uuid
from dataclasses import dataclass
from typing import Final

from ...domain.activity import decode_activity
from ...domain.messages import encode_message, message_of
from ...domain.records import DecodedRecord, RawRecord
from .rounds import Contender, print_table, verdict
from .systems import (
    REDIS,
    activities,
    cached,
    count_items,
    depth,
    fifo_queue,
    forget,
    model_server,
    queue_address,
    score_table,
    send_messages,
    table_address,
    unique,
)

TARGET_PLAIN: Final = 0.85
TARGET_USUAL: Final = 5.0
MODEL_MS: Final = 20
WORKER: Final = "scoreUsers"
_BATCH: Final = 64


@dataclass
class _Entry:
    """A contender, and how it is called.

    Attributes:
        contender: it.
        batch: whether it asks the model for many users at a time.
        arguments: of a round, ``{queue}``, ``{table}``, ``{model}`` and ``{number}`` to be filled in.
    """

    contender: Contender
    batch: bool
    arguments: tuple[str, ...]


def scoring_messages(number: int, users: int | None, prefix: str) -> list[tuple[str, bytes]]:
    """Messages of the account activity queue, each with its user, as ``activities``; the prefix begins users' ids."""
    request_id = uuid.uuid4().hex
    made: list[tuple[str, bytes]] = []
    for user, value in activities(number, users):
        own = value.replace(user.encode(), f"{prefix}-{user}".encode()).replace(b"heartbeat", b"login")
        activity = decode_activity(own)
        record = DecodedRecord(RawRecord(own, "", own), activity, activity.time_ms)
        made.append((f"{prefix}-{user}", encode_message(message_of(record, request_id, "enqueueFromStream"))))
    return made


def settings_of(queue: str, table: str, model: str) -> dict[str, str]:
    """The settings of a scoring worker."""
    return {
        "queue": queue_address(queue),
        "table": table_address(table),
        "dead_letters": table_address(table),
        "cache": REDIS,
        "model": model,
    }


def run(rounds: int, number: int, users: int) -> float:
    """Measures all, in turns, each on a fresh queue and table with the same content.

    Returns:
        Our median of messages a second, the model asked in batches.
    """
    usual = Contender("peer C: httpx + boto3 + redis-py, 8 threads", "peer_usual")
    plain, plain_single = (Contender(f"peer B: our clients, no Beam, {kind}", "peer_plain") for kind in _KINDS)
    ours, ours_single = (Contender(f"fan-identity {WORKER}, {kind}", "ours", [WORKER]) for kind in _KINDS)
    entries = [
        _Entry(usual, False, ("{queue}", "{table}", "{model}", "{number}")),
        _Entry(plain_single, False, ("{number}",)),
        _Entry(ours_single, False, ()),
        _Entry(plain, True, ("{number}",)),
        _Entry(ours, True, ()),
    ]
    with model_server(MODEL_MS) as model:
        for _ in range(rounds):
            for entry in entries:
                _round(entry, number, users, model)
    print(
        f"\nQueue → score → DynamoDB and Redis: {number:,} messages of up to {users:,} users, a model of {MODEL_MS} ms,"
    )
    print(f"{rounds} alternating rounds")
    print_table([entry.contender for entry in entries], usual)
    for name, one, peer in (("a user a call", ours_single, plain_single), ("batches", ours, plain)):
        ratio = one.rate / peer.rate
        print(f"target: at least {TARGET_PLAIN} of peer B, {name}: {ratio:.2f}, {verdict(ratio >= TARGET_PLAIN)}")
    ratio = ours.rate / usual.rate
    print(f"target: at least {TARGET_USUAL:.0f} times peer C: {ratio:.2f}, {verdict(ratio >= TARGET_USUAL)}")
    print(f"(with one user a model call, as peer C asks: {ours_single.rate / usual.rate:.2f})")
    return ours.rate


_KINDS: Final = ("model in batches", "a user a call")


def _round(entry: _Entry, number: int, users: int, model: str) -> None:
    messages = scoring_messages(number, users, unique("bench"))
    names = sorted({user for user, _ in messages})
    address = f"{model}?batch={_BATCH}" if entry.batch else model
    with fifo_queue() as queue, score_table(names) as table:
        send_messages(queue, messages)
        filled = {"queue": queue, "table": table, "model": model, "number": str(number)}
        arguments = [argument.format(**filled) for argument in entry.arguments]
        done = entry.contender.run(settings_of(queue, table, address), *arguments)
        scored, latest, left = count_items(table), count_items(table, "LATEST"), depth(queue)
        in_cache = sum(value is not None for value in cached(names))
        forget(names)
    if (done, scored, latest, in_cache, left) != (number, number, len(names), len(names), 0):
        raise SystemExit(
            f"{entry.contender.name}: {done:,} done of {number:,}; {scored:,} scores, {latest:,} latest items and "
            f"{in_cache:,} cached of {len(names):,} users, {left:,} messages left"
        )
