"""``fan-identity doctor``: what is here, what is reachable, what waits, who runs, and what is known not to work."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from ...domain.known_broken import BROKEN
from ...serving.settings import ServingSettings, load_serving_settings
from .common import AsJson, Model, Store, err, heading, out, print_json, printable
from .doctor_checks import Found, Status, of_model, of_pairs, of_parts, of_versions, redis_version
from .doctor_traffic import of_flags, of_queues, of_source, of_workers

_MARKS: Final[dict[Status, tuple[str, str]]] = {
    "ok": ("ok", "green"),
    "warning": ("note", "yellow"),
    "failed": ("FAILED", "bold red"),
}
_DETAIL_CHARACTERS: Final = 600


def doctor(
    store: Store = None,
    model: Model = None,
    source: Annotated[
        str | None, typer.Option(help="What a worker reads, to tell how far it is behind.", show_default=False)
    ] = None,
    queue: Annotated[str | None, typer.Option(help="accountActivityQueue.", show_default=False)] = None,
    table: Annotated[str | None, typer.Option(help="The fan identity table.", show_default=False)] = None,
    cache: Annotated[str | None, typer.Option(help="The ARM cache.", show_default=False)] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="List all versions and pairs known to be broken.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check versions and pairs known to be broken, every part the settings name, queues, lag, workers and flags.

    All settings are read from the environment, as the workers read them. Parts are those checkLiveness probes; what is
    asked does no harm: no message is taken, nobody is scored. Exits with 2 where a setting is wrong, with 3 where
    something is down or must not run so; what is only worth knowing ("note") changes nothing.

    Examples:

      fan-identity doctor

      fan-identity doctor --store sqlite:///fans.db --json
    """
    if pairs:
        _show_pairs(as_json=as_json)
        return
    settings = load_serving_settings(store=store, model=model, source=source, queue=queue, table=table, cache=cache)
    found = _look(settings)
    if as_json:
        print_json(
            [
                {
                    "section": one.section,
                    "check": one.check,
                    "status": one.status,
                    "detail": one.detail,
                    **({"data": one.data} if one.data else {}),
                }
                for one in found
            ]
        )
    else:
        _show(found)
    if code := max(one.code for one in found):
        raise typer.Exit(code)


def _look(settings: ServingSettings) -> list[Found]:
    """All checks; a spinner says what is being asked, where somebody watches."""
    from ...serving.liveness import named_parts_of  # noqa: PLC0415 - with the clients of every part

    parts = named_parts_of(settings)
    seconds = settings.probe_deadline.total_seconds()
    found = [*of_versions(settings.prism), *of_model(settings.model)]
    workers: list[Found] = []
    runners: list[str] = []

    def look_at_workers() -> list[Found]:
        own, live = of_workers(settings)
        workers.extend(own)
        runners.extend(live)
        return []

    steps: list[tuple[str, Callable[[], list[Found]]]] = [
        (f"asking {len(parts)} parts", lambda: of_parts(parts, seconds)),
        ("counting what waits in queues", lambda: of_queues(settings)),
        ("looking how far workers are behind", lambda: of_source(settings)),
        ("looking who runs", look_at_workers),
        ("asking for flags", lambda: of_flags(settings)),
        ("comparing versions", lambda: of_pairs(runners, redis_version(settings))),
    ]
    if not parts:  # nothing but this machine is named
        steps = steps[-1:]
    with err.status("looking") as spinner:
        for what, look in steps:
            spinner.update(f"{what} …")
            found += look()
    return [*found, *workers]


_SECTIONS: Final = ("versions", "known broken", "parts", "queues", "sources", "workers", "flags")


def _show(found: Sequence[Found]) -> None:
    for section in _SECTIONS:
        own = [one for one in found if one.section == section]
        if not own:
            continue
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(justify="right", no_wrap=True, min_width=6)
        table.add_column(no_wrap=section != "known broken", min_width=22)
        table.add_column(overflow="fold")
        for one in own:
            mark, colour = _MARKS[one.status]
            table.add_row(Text(mark, colour), printable(one.check), printable(one.detail, _DETAIL_CHARACTERS))
        out.print(heading(section), table)


def _show_pairs(*, as_json: bool) -> None:
    if as_json:
        rows = [
            {"what": one.what, "status": one.status, "problem": one.problem, "remedy": one.remedy, "source": one.source}
            for one in BROKEN
        ]
        print_json(rows)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("versions", "what goes wrong", "what helps", "source"):
        table.add_column(name, overflow="fold")
    for one in BROKEN:
        table.add_row(*(Text(text) for text in (one.what, one.problem, one.remedy, one.source)))
    out.print(table)
