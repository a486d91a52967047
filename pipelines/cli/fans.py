"""``fan-identity erase`` and ``export``: one fan in every store. Neither imports Beam."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from rich.table import Table

from ... import __version__
from ...domain.activity import format_time_ms
from ...domain.fan_traces import Fan
from ...domain.imports import LEASE as IMPORTS_LEASE
from ...io.backends import open_table
from ...io.clock import now_ms
from ...io.errors import UsageError
from ...io.leases import Lease
from ...io.registry import WORKERS, worker_named
from ...io.whole_files import write_whole
from .common import AsJson, Store, err, out, print_json, printable
from .job_files import ReportFile, SummaryFile, check_job_files, failure_told, write_job_files

if TYPE_CHECKING:
    from ...batch.erase import Erasure
    from ...io.fan_places import FanStores, Place
    from ...serving.settings import ServingSettings

EXIT_LEFT: Final = 1

_TABLES: Final = (
    "table",
    "staging_table",
    "verification_table",
    "account_fanscore_table",
    "demand_table",
    "outbox",
    "arai",
    "cache",
    "dead_letters",
)

User = Annotated[str, typer.Argument(metavar="USER", help="The fan's globalUserId; - to read it from standard input.")]
Member = Annotated[
    str | None,
    typer.Option("--member", help="The fan's memberId, to find the account's score too.", show_default=False),
]
TableOption = Annotated[
    str | None, typer.Option("--table", help="The fan identity table: dynamodb://name?region=….", show_default=False)
]
CacheOption = Annotated[
    str | None, typer.Option("--cache", help="ARM cache: redis://host/0, rediss://….", show_default=False)
]
LettersOption = Annotated[
    str | None, typer.Option("--dead-letters", help="Dead letters: dynamodb://name.", show_default=False)
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(help="Also look into reports and results in this folder.", show_default=False),
]


def erase(
    user: User,
    member: Member = None,
    store: Store = None,
    table: TableOption = None,
    cache: CacheOption = None,
    dead_letters: LettersOption = None,
    report_folder: ReportFolder = None,
    remove_reports: Annotated[
        bool, typer.Option("--remove-reports", help="Delete reports that name the fan; else they are only listed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
    summary: SummaryFile = None,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Erase a fan from every store: tables, cache, queues, dead letters, activity log, outbox, and import versions.

    Settings say where the stores are (FAN_IDENTITY_STORE, FAN_IDENTITY_TABLE, FAN_IDENTITY_DEMAND_TABLE and so on).
    Every store is asked first, and nothing is erased while one is out of reach. Run again it does no harm: after a
    kill, or once the queues of SQS and Pub/Sub, which cannot be searched, have drained. The last line on standard
    error is for the books, and names the fan by a hash only.

    Exit codes: 0 erased, or nothing there; 1 something is left, which is named; 2 bad usage; 3 a store is out of reach
    or in use.

    Examples:

      fan-identity erase fan-00042 --store sqlite:///fans.db --dry-run

      fan-identity erase fan-00042 --member m-7 --store sqlite:///fans.db --report-folder reports --remove-reports

      fan-identity erase - --table dynamodb://fanIdentity --cache redis://host/0 < id.txt
    """
    from ...batch.erase import erase as erase_from  # noqa: PLC0415

    check_job_files(summary, report)
    started = now_ms()
    fan = _fan(user, member)
    settings, stores = _stores(store=store, table=table, cache=cache, dead_letters=dead_letters)
    places = _places(fan, stores, report_folder, remove_reports=remove_reports)
    identity = stores.address("table")
    with failure_told("erase", summary, report):
        if dry_run or identity is None:
            done = erase_from(places, stores.sqlite_stores(), dry_run=dry_run)
        else:
            from ...io.work_folder import remove_abandoned  # noqa: PLC0415 - brings pyarrow

            # An import that runs would write the fan into its version after the erasure.
            with Lease(open_table(identity, "table", worker_named("scoreUsers").table_name), IMPORTS_LEASE):
                remove_abandoned(settings.work)  # what killed imports left on this machine holds fans' ids
                done = erase_from(places, stores.sqlite_stores())
    notes = _notes(done, stores, places)
    _tell(fan, done, notes, dry_run=dry_run, as_json=as_json)
    _write_down(settings, done, notes, started, summary, report, dry_run=dry_run)
    if not dry_run:
        _for_the_books(fan, done)
    if done.left and not dry_run:
        raise typer.Exit(EXIT_LEFT)


def export(
    user: User,
    member: Member = None,
    store: Store = None,
    table: TableOption = None,
    cache: CacheOption = None,
    dead_letters: LettersOption = None,
    report_folder: ReportFolder = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The file to write, readable for you alone; standard output else.", show_default=False
        ),
    ] = None,
) -> None:
    """Write everything the stores have of a fan as one JSON document: by place, the same places that erase goes to.

    Examples:

      fan-identity export fan-00042 --store sqlite:///fans.db --out fan.json

      fan-identity export fan-00042 --member m-7 --table dynamodb://fanIdentity --cache redis://host/0 | jq .places
    """
    from ...batch.erase import exported  # noqa: PLC0415

    fan = _fan(user, member)
    _, stores = _stores(store=store, table=table, cache=cache, dead_letters=dead_letters)
    places = _places(fan, stores, report_folder, remove_reports=False)
    document = exported(fan, places, format_time_ms(now_ms()))
    encoded = msgspec.json.Encoder(order="sorted", enc_hook=str).encode(document)
    text = msgspec.json.format(encoded) + b"\n"
    if to is not None:
        write_whole(to, text, "out", private=True)
        return
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def _fan(user: str, member: str | None) -> Fan:
    if user == "-":
        user = sys.stdin.read().removesuffix("\n")
    for name, text in (("user id", user), ("member id", member)):
        if text is not None and not text.strip():
            raise UsageError(f"the {name} is blank")
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise UsageError(f"the {name} is not UTF-8; nobody has it") from None
    return Fan(user, member)


def _stores(**flags: Any) -> "tuple[ServingSettings, FanStores]":
    from ...io.fan_places import FanStores  # noqa: PLC0415 - brings pyarrow
    from ...serving.settings import load_serving_settings  # noqa: PLC0415 - these commands alone look at all stores

    settings = load_serving_settings(**flags)
    queues = {worker.queue_setting: getattr(settings, worker.queue_setting) for worker in WORKERS.values()}
    return settings, FanStores(
        store=settings.store,
        queues={setting: address for setting, address in queues.items() if address is not None},
        **{setting: getattr(settings, setting) for setting in _TABLES},
    )


def _places(fan: Fan, stores: "FanStores", reports: Path | None, *, remove_reports: bool) -> "list[Place]":
    from ...io.fan_places import places_of  # noqa: PLC0415

    if remove_reports and reports is None:
        raise UsageError("--remove-reports: where are they? give --report-folder")
    places = places_of(fan, stores)
    if reports is not None:
        from ...batch.fan_reports import Reports  # noqa: PLC0415

        places.append(Reports(reports, fan, delete=remove_reports))
    return places


def _notes(done: "Erasure", stores: "FanStores", places: "list[Place]") -> list[str]:
    notes = [
        f"about {depth:,} messages wait in {name}, and one may be the fan's: run this again once they are done"
        for name, depth in done.depths.items()
        if depth
    ]
    if done.left:
        left = ", ".join(f"{name} ({number:,})" for name, number in done.left.items())
        notes.insert(0, f"left: {left}")
    notes += [f"no address for the {setting.replace('_', ' ')}: not looked into" for setting in stores.missing()]
    if not any(place.name == "account fanscore table" for place in places):
        notes.append("the account's score was not looked for: give --member")
    return notes


def _tell(fan: Fan, done: "Erasure", notes: list[str], *, dry_run: bool, as_json: bool) -> None:
    counts = done.found if dry_run else done.erased
    if as_json:
        print_json({"fan": fan.digest, "dryRun": dry_run, "notes": notes, **msgspec.to_builtins(done)})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("place")
    table.add_column("would be erased" if dry_run else "erased", justify="right")
    for place, number in counts.items():
        table.add_row(printable(place), f"{number:,}")
    out.print(table)
    for note in notes:
        err.print(printable(note, 400), soft_wrap=True)


def _write_down(
    settings: "ServingSettings",
    done: "Erasure",
    notes: list[str],
    started: int,
    summary: Path | None,
    report: Path | None,
    *,
    dry_run: bool,
) -> None:
    if summary is None and report is None:
        return  # Jinja takes its time to import
    from ...batch.job_summary import JobSummary, Outcome, shown_settings  # noqa: PLC0415

    nothing = Outcome.DRY_RUN if dry_run else Outcome.DONE if sum(done.erased.values()) else Outcome.NOTHING
    made = JobSummary(
        job="erase",
        started_at=started,
        outcome=Outcome.FAILED if done.left and not dry_run else nothing,
        exit_code=EXIT_LEFT if done.left and not dry_run else 0,
        counts=done.found if dry_run else done.erased,
        settings=shown_settings(settings),
        notes=tuple(notes),
    )
    write_job_files(made, summary, report)


def _for_the_books(fan: Fan, done: "Erasure") -> None:
    line = {
        "time": format_time_ms(now_ms()),
        "event": "fanErased",
        "fan": fan.digest,
        "erased": {name: number for name, number in done.erased.items() if number},
        "left": done.left,
        "version": __version__,
    }
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
