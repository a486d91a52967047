"""The whole story on one machine: an on-sale is simulated, scored, and held against what the simulation knows."""

from dataclasses import dataclass
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions

from ..io.backends import Backends
from ..io.errors import UsageError
from ..io.files import plan_ranges
from ..io.ports import Item
from ..io.settings import Settings
from ..pipelines.enqueue import RulesOfNow
from .report import write_report
from .score_files import ScoreRun, Watch, score_files
from .separation import Separation, read_labels, separate
from .simulate import INTERNAL_ACCOUNTS, SaleSettings, SimulationSummary, write_simulation
from .summary import Summary, summarize

_HORIZON_MS = 7 * 24 * 60 * 60 * 1_000
_STORE = "fans.db"
_LABELS = "activities.labels.jsonl"
_IN_BETWEEN = 3


@dataclass(frozen=True)
class Demo:
    """What a demo leaves behind.

    Attributes:
        folder: everything is in it: ``activities.jsonl``, its labels, ``fans.db`` and ``report.html``.
        simulation: what was simulated.
        run: the books and times of scoring it.
        summary: the users by their latest score.
        separation: how well the scores tell bots from fans, or None where the run was interrupted.
    """

    folder: Path
    simulation: SimulationSummary
    run: ScoreRun
    summary: Summary
    separation: Separation | None

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @property
    def store(self) -> str:
        """The store's address."""
        return store_address(self.folder)

    def examples(self) -> list[Item]:
        """Three users worth a look: the riskiest, one in between (the median of ARM 3), and the one most like a fan."""
        ranked = sorted(self.summary.latest.values(), key=lambda item: (item["accountScore"], item["globalUserId"]))
        between = [item for item in ranked if item["armRisk"] == _IN_BETWEEN]
        return [*ranked[:1], *between[len(between) // 2 :][:1], *ranked[-1:]]


def store_address(folder: Path) -> str:
    """The address of a demo's store."""
    return f"sqlite:///{folder / _STORE}"


def simulate_into(folder: Path, sale: SaleSettings) -> SimulationSummary:
    """Makes the folder ready and simulates the sale into it; an earlier demo's files there are replaced.

    Raises:
        UsageError: the folder holds something else than a demo, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / _LABELS).exists():
            # A store of the user's own may have the same name.
            raise UsageError(f"--out {folder}: is not empty and holds no demo; name another folder")
        for suffix in ("", "-wal", "-shm"):
            (folder / f"{_STORE}{suffix}").unlink(missing_ok=True)
        return write_simulation(sale, folder / "activities.jsonl")
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written: {error.strerror}") from None


def score_simulation(
    folder: Path, sale: SaleSettings, simulation: SimulationSummary, options: PipelineOptions, watch: Watch
) -> Demo:
    """Scores a simulated sale, compares the scores with its labels and writes the report.

    Raises:
        BackendUnavailableError: the store cannot be written.
        UsageError: the report cannot be written.
    """
    backends = Backends.of(Settings(store=store_address(folder)))
    rules = RulesOfNow(_HORIZON_MS, frozenset(INTERNAL_ACCOUNTS), as_of_ms=sale.end_ms)
    run = score_files(plan_ranges([str(simulation.path)]), rules, backends, options, watch=watch)
    summary = summarize(backends)
    separation = None if run.interrupted else separate(summary, read_labels(simulation.labels_path))
    demo = Demo(folder, simulation, run, summary, separation)
    write_report(demo.report, run, summary, separation=separation, title="A simulated on-sale")
    return demo
