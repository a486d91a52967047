"""``fan-identity demo``: the whole story on this machine."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...io.settings import load_settings
from .common import AsJson, arm_table, err, finish, heading, ledger_json, ledger_rows, out, print_json, two_columns
from .lookup import print_fan
from .progress import progress_bar

if TYPE_CHECKING:
    from ...batch.demo import Demo


def demo(
    context: typer.Context,
    fans: Annotated[int, typer.Option(min=1, max=1_000_000, help="Fans in the simulated sale.")] = 20_000,
    bots: Annotated[int, typer.Option(min=1, max=100_000, help="Bots in the simulated sale.")] = 1_000,
    seed: Annotated[int, typer.Option(help="The same seed simulates the same sale.")] = 7,
    folder: Annotated[Path, typer.Option("--out", help="Folder for everything the demo writes.")] = Path("demo-output"),
    as_json: AsJson = False,
) -> None:
    """Simulate an on-sale, score it, and show who is a bot and why.

    Fans and several kinds of bots leave about 200,000 activities, duplicates, late and malformed records among them.
    They are queued, profiled, scored and stored by the same pipelines that run on Flink or Dataflow, here with one
    SQLite file. The folder keeps the activities, the store and an HTML report to look around in.

    Examples:

      fan-identity demo

      fan-identity demo --fans 2000 --bots 100 --seed 1 --out /tmp/small-sale
    """
    settings = load_settings()
    # Beam takes a second to import: after the settings were found to be right.
    from ...batch.demo import score_simulation, simulate_into  # noqa: PLC0415
    from ...batch.simulate import SaleSettings  # noqa: PLC0415
    from ..runner import drain_on_signal, parse_beam_flags  # noqa: PLC0415

    options = parse_beam_flags(context.obj or [], prism=settings.prism)
    sale = SaleSettings(fans=fans, bots=bots, seed=seed)
    began = time.perf_counter()
    with err.status(f"simulating a sale with {fans:,} fans and {bots:,} bots"):
        simulation = simulate_into(folder, sale)
    with drain_on_signal():
        result = score_simulation(folder, sale, simulation, options, progress_bar)
    seconds = time.perf_counter() - began
    if as_json:
        print_json(_json(result, seconds))
    else:
        _print(result, seconds)
    # The simulation plants malformed records: finding them is no failure.
    _finish(result)


def _finish(result: "Demo") -> None:
    planted = result.simulation.counts.get("malformed", 0)
    found = result.run.ledger.total_dead_lettered
    if result.run.interrupted or result.run.ledger.unaccounted or found != planted:
        finish(
            result.run.ledger,
            interrupted=result.run.interrupted,
            dead_letters_hint=f"fan-identity dead-letters list --store {result.store}",
        )


def _json(result: "Demo", seconds: float) -> dict[str, Any]:
    separation = result.separation
    return {
        **ledger_json(result.run.ledger),
        "seconds": round(seconds, 2),
        "eventsPerSecond": round(result.run.events_per_second, 1),
        "users": result.summary.users,
        "armDistribution": {str(arm): users for arm, users in result.summary.arm_distribution.items()},
        "rocAuc": None if separation is None else separation.roc_auc,
        "precisionAt1Percent": None if separation is None else separation.precision_at_1_percent,
        "aucByKind": None if separation is None else dict(separation.auc_by_kind),
        "store": result.store,
        "report": str(result.report),
    }


def _print(result: "Demo", seconds: float) -> None:
    run = result.run
    out.print(
        heading("Records"), two_columns([*ledger_rows(run.ledger), ("events/s", f"{run.events_per_second:,.0f}")])
    )
    out.print()
    out.print(heading("Users by ARM, account risk from 1 to 5"), arm_table(result.summary.arm_distribution))
    out.print()
    if result.separation is not None:
        separation = result.separation
        rows: list[tuple[str, object]] = [
            ("ROC AUC, all bots", f"{separation.roc_auc:.3f}"),
            *((f"  {kind}", f"{auc:.3f}") for kind, auc in separation.auc_by_kind.items()),
            ("precision among the riskiest 1 %", f"{separation.precision_at_1_percent:.1%}"),
        ]
        out.print(heading("Scores against what the simulation knows"), two_columns(rows))
        out.print()
    for item in result.examples():
        print_fan(item)
        out.print()
    out.print(f"{seconds:.0f} s in all. Look at {result.report}, or try:")
    for command in ("dead-letters list", "doctor"):
        out.print(f"  .venv/bin/fan-identity {command} --store {result.store}", soft_wrap=True)
