"""``fan-identity arm``, ``show`` and ``dump``: what the store knows. None of them imports Beam."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from ...domain.keys import LATEST_SK, arm_cache_key, user_pk
from ...domain.scorecard import describe
from ...domain.scores import stored_reasons
from ...io.backends import open_cache, open_table, sqlite_store
from ...io.errors import UsageError
from ...io.leases import LEASE_SK
from ...io.ports import ArmCache
from ...io.ports import Table as StoredTable
from ...io.registry import worker_named
from ...io.settings import load_settings
from ...io.sqlite.store import SqliteStore
from ...io.sqlite.table import SqliteArmCache, SqliteTable
from .common import AsJson, Store, out, print_json, printable

User = Annotated[str, typer.Argument(help="The user's globalUserId.", show_default=False)]
_TABLE = worker_named("scoreUsers").table_name
_NAMES_THE_RUN = ("requestId", "dateUpdated", "traceparent")


def existing_store(address: str | None) -> SqliteStore:
    """The store to look into, which must exist.

    Raises:
        UsageError: no store is named, or there is no such file.
    """
    settings = load_settings(store=address)
    if settings.store is None:
        raise UsageError("which store? give --store sqlite:///file.db or set FAN_IDENTITY_STORE")
    return sqlite_store(settings.store, "store", create=False)


def _text(user: str) -> str:
    """The id as given; an argument of other bytes than UTF-8 arrives as text that cannot be encoded."""
    try:
        user.encode()
    except UnicodeEncodeError:
        raise UsageError("the user id is not UTF-8; no user has it") from None
    return user


def arm(
    user: User,
    store: Store = None,
    cache: Annotated[str | None, typer.Option(help="The ARM cache's address, where there is no store.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look a user's ARM (account risk, 1 to 5) up, as the sale's front end does.

    Examples:

      fan-identity arm fan-00042 --store sqlite:///fans.db

      fan-identity arm fan-00042 --store sqlite:///fans.db --json

      fan-identity arm fan-00042 --cache redis://host/0
    """
    value = _cache(store, cache).get(arm_cache_key(_text(user)))
    if as_json:
        print_json({"data": {"armScore": None if value is None else value["arm_risk"]}})
    elif value is None:
        out.print("unknown fan")
    else:
        out.print(f"ARM {value['arm_risk']} of 5 (as of {value['score_date']}, model {value['modelVersion']})")


def show(
    user: User,
    store: Store = None,
    table: Annotated[str | None, typer.Option(help="The table's address, where there is no store.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many scores to show, newest first.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show a user's scores, newest first, and why the latest is what it is.

    Examples:

      fan-identity show fan-00042 --store sqlite:///fans.db

      fan-identity show fan-00042 --store sqlite:///fans.db --limit 100 --json

      fan-identity show fan-00042 --table "dynamodb://fanIdentityTable?region=eu-west-1"
    """
    looked_in = _table(store, table)
    pk = user_pk(_text(user))
    latest = looked_in.get(pk, LATEST_SK)
    history = looked_in.query(pk, "SCORE#", newest_first=True, limit=limit)
    if as_json:
        print_json({"globalUserId": user, "latest": latest, "scores": history})
        return
    if latest is None:
        out.print("unknown fan")
        return
    print_fan(latest)
    out.print()
    out.print(_history_table(history))


def _table(store: str | None, table: str | None) -> StoredTable:
    address = load_settings(table=table).table
    if address is None or store is not None:
        return SqliteTable(existing_store(store), _TABLE)
    return open_table(address, "table", _TABLE)


def _cache(store: str | None, cache: str | None) -> ArmCache:
    address = load_settings(cache=cache).cache
    if address is None or store is not None:
        return SqliteArmCache(existing_store(store))
    return open_cache(address)


def print_fan(latest: Mapping[str, Any]) -> None:
    """One fan's latest score with its reasons."""
    out.print(printable(latest["globalUserId"]).append(f"  score {latest['accountScore']:.2f} of 100"), end="")
    out.print(
        f", ARM {latest['armRisk']} of 5, bot-or-not {latest['bonScore']:.3f}  ({latest['modelVersion']}, "
        f"after {latest['activityType']} at {latest['occurredAt']})"
    )
    out.print(f"  {latest['baseScore']:6.2f}: an average account")
    for reason in stored_reasons(latest):
        points, sentence = describe(reason).split(": ", 1)
        out.print(f"  {points:>6}: {sentence}")
    out.print(f"  {_signed(latest['otherPoints']):>6}: everything else")


def _signed(points: float) -> str:
    return f"{'−' if points < 0 else '+'}{abs(points):.2f}"


def _history_table(history: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("time (UTC)", "activity", "score", "ARM", "bot-or-not", "strongest reasons"):
        table.add_column(column, no_wrap=True)
    for item in history:
        reasons = ", ".join(reason.code for reason in stored_reasons(item)[:2])
        table.add_row(
            item["occurredAt"],
            item["activityType"],
            f"{item['accountScore']:.2f}",
            str(item["armRisk"]),
            f"{item['bonScore']:.3f}",
            reasons,
        )
    return table


def dump(store: Store = None) -> None:
    """Write every item and cache entry, sorted, as canonical JSON lines, without what names a run.

    Two stores that went through the same activities dump the same bytes, in whatever order and however often the
    activities came. Left out are the request id, the time of writing, and the locks of jobs.

    Examples:

      fan-identity dump --store sqlite:///fans.db > after.jsonl

      diff <(fan-identity dump --store sqlite:///a.db) <(fan-identity dump --store sqlite:///b.db)
    """
    opened = existing_store(store)
    encode = msgspec.json.Encoder(order="sorted").encode
    for item in SqliteTable(opened, _TABLE).scan():
        if item["SK"] == LEASE_SK:
            continue
        sys.stdout.buffer.write(encode(_lasting(item)) + b"\n")
    for key, value in SqliteArmCache(opened).scan():
        sys.stdout.buffer.write(encode({"cacheKey": key, "value": _lasting(value)}) + b"\n")
    sys.stdout.buffer.flush()


def _lasting(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name not in _NAMES_THE_RUN}
