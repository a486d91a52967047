"""``fan-identity imports on-event`` and ``watch``: a new object in S3 starts the import of that file."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ...domain.activity import MalformedRecordError
from ...domain.import_summary import headline, record_json
from ...domain.imports import ImportKind
from ...domain.ledger import DEAD_LETTERED
from ...io.backends import QUEUES, Backends, check_parts, open_flags, open_queue, scheme_of
from ...io.errors import BackendUnavailableError, FanIdentityError, UsageError
from ...io.kill_switch import KillSwitch
from ...io.settings import Settings, load_settings
from ...io.telemetry.totals import totals_of
from .common import EXIT_DEAD_LETTERS, AsJson, Store, err, out, print_json, printable, two_columns
from .imports import CacheOption, LettersOption, TableOption, exit_code, job_of, request_of, switched_off

if TYPE_CHECKING:
    from ...batch.import_events import Prefixes, Start
    from ...batch.import_job import ImportOutcome

_QUEUE_NAME: Final = "importEventQueue"

ClusterPrefix = Annotated[
    str | None,
    typer.Option(
        help="Keys of cluster files begin with this (clusters/ unless given); empty to look at columns.",
        show_default=False,
    ),
]
BonPrefix = Annotated[
    str | None,
    typer.Option("--bot-or-not-prefix", help="Likewise, of bot-or-not scores (bot-or-not/).", show_default=False),
]


def on_event(
    context: typer.Context,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="A file with the event's JSON; - for standard input.")],
    store: Store = None,
    table: TableOption = None,
    cache: CacheOption = None,
    dead_letters: LettersOption = None,
    cluster_prefix: ClusterPrefix = None,
    bot_or_not_prefix: BonPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Import the files that an S3 event tells of: bare, or in an envelope of SQS, SNS or EventBridge.

    The kind is told by the key's prefix, else by the file's columns. Each object is one complete version; of a
    delivery in several files, the event of its _SUCCESS marker imports the whole folder.

    Exit codes: 0 done, or nothing to import; 1 with bad rows; 2 refused, or no event of S3; 3 a backend is out of reach
    or another import is running: try again later.

    Examples:

      fan-identity imports on-event event.json --store sqlite:///fans.db

      aws sqs receive-message --queue-url ... | jq -r .Messages[0].Body | fan-identity imports on-event -
    """
    from ...batch.import_events import start_imports  # noqa: PLC0415 - imports Beam
    from ..runner import stop_on_sigterm  # noqa: PLC0415

    settings = load_settings(
        store=store,
        table=table,
        cache=cache,
        dead_letters=dead_letters,
        cluster_prefix=cluster_prefix,
        bot_or_not_prefix=bot_or_not_prefix,
    )
    body = _read(event)
    try:
        start = _start(settings, context.obj or [])
        with stop_on_sigterm():
            started = start_imports(body, _prefixes(settings), start, _already, settings.s3_options)
    except MalformedRecordError as error:
        raise UsageError(str(error)) from None
    if not (started.outcomes or started.problems):
        err.print("the event tells of no new object: nothing to import")
    for outcome in started.outcomes:
        _tell(outcome, as_json=as_json)
    if started.problems:
        raise UsageError("; ".join(started.problems))
    code = max(map(exit_code, started.outcomes), default=0)  # refused goes before dead letters
    if code:
        raise typer.Exit(code)


def watch(
    context: typer.Context,
    queue: Annotated[str, typer.Option(help="Where S3's events arrive: sqs://queue?region=….", show_default=False)],
    store: Store = None,
    table: TableOption = None,
    cache: CacheOption = None,
    dead_letters: LettersOption = None,
    cluster_prefix: ClusterPrefix = None,
    bot_or_not_prefix: BonPrefix = None,
    as_json: AsJson = False,
) -> None:
    """Run the imports that a queue's events ask for, one after another, until stopped.

    A message is deleted when its import has ended; one that is refused, or no event of S3, becomes a dead letter. What
    may work later is given back to the queue. Ctrl-C (or SIGTERM) lets the running import end.

    Examples:

      fan-identity imports watch --queue "sqs://partner-drops?region=eu-west-1" --table dynamodb://fanIdentity
      --cache redis://host/0 --dead-letters dynamodb://fanIdentityDeadLetters
    """
    from ...batch.import_events import WatchQueue  # noqa: PLC0415
    from ...transforms.draining import draining  # noqa: PLC0415
    from ..runner import drain_on_signal  # noqa: PLC0415

    settings = load_settings(
        store=store,
        table=table,
        cache=cache,
        dead_letters=dead_letters,
        cluster_prefix=cluster_prefix,
        bot_or_not_prefix=bot_or_not_prefix,
    )
    if scheme_of(queue) not in QUEUES:
        raise UsageError("--queue: write sqs://queue?region=…, pubsub://project/subscription or sqlite:///file.db")
    backends = Backends.of_tables(settings)
    visibility_ms = round(settings.visibility_timeout.total_seconds() * 1_000)
    events = open_queue(queue, "queue", _QUEUE_NAME, visibility_ms)
    letters = backends.open_dead_letters()
    # A wrong address is told here: later it would be taken for the fault of a message.
    check_parts([events, letters, backends.open_table(), backends.open_cache()])

    start = _start(settings, context.obj or [])
    watching = WatchQueue(events, letters, queue, _prefixes(settings), start, _already, settings.s3_options)
    err.print("watching; stop it with Ctrl-C")
    flags = open_flags(settings.flags, settings.flags_default, settings.flags_folder)
    switches = [KillSwitch(kind.worker, flags, totals_of(kind.worker).count, draining) for kind in ImportKind]
    with drain_on_signal():
        # A message's kind is known once it was taken: while one of the two is switched off, all wait.
        counts = watching.run(draining, lambda: all(switch.is_on() for switch in switches))
    if as_json:
        print_json(counts)
    else:
        out.print(two_columns(counts.items()))
    if any(name.startswith(DEAD_LETTERED) for name in counts):
        raise typer.Exit(EXIT_DEAD_LETTERS)


def _read(event: str) -> bytes:
    if event == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(event).read_bytes()
    except OSError as error:
        raise UsageError(f"{event} cannot be read: {error.strerror}") from None


def _prefixes(settings: Settings) -> "Prefixes":
    return {ImportKind.CLUSTER: settings.cluster_prefix, ImportKind.BOT_OR_NOT: settings.bot_or_not_prefix}


def _start(settings: Settings, beam_flags: list[str]) -> "Start":
    def start(kind: ImportKind, addresses: list[str]) -> "ImportOutcome":
        if switched_off(settings, kind):
            raise BackendUnavailableError(f"{kind.worker} is switched off by its flag: try again later")
        err.print(printable(f"importing {kind}: {', '.join(addresses)}", 400), soft_wrap=True)
        return job_of(kind, settings, beam_flags).run(
            replace(request_of(settings, kind, addresses), refuse_rolled_back=True)
        )

    return start


def _already(error: FanIdentityError) -> bool:
    from ...batch.import_job import ImportRefusedError  # noqa: PLC0415 - imports Beam

    return isinstance(error, ImportRefusedError)


def _tell(outcome: "ImportOutcome", *, as_json: bool) -> None:
    if as_json:
        print_json({**record_json(outcome.record), "result": outcome.result, "refused": outcome.refused})
    else:
        for line in headline(outcome.record):
            out.print(printable(line, 400), soft_wrap=True)
    ending = f"refused: {outcome.refused}" if outcome.refused else f"{outcome.record.version}: {outcome.result}"
    err.print(printable(ending, 1_000), soft_wrap=True)
