"""An import's comparison in the terminal: the ARM matrix, the counts, and examples."""

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ...domain.import_summary import arm_totals, bad_words, books, score_text
from ...domain.imports import ARM_LEVELS, EXAMPLES, ArmChange, ClusterChanges, Comparison, ImportKind, VersionRecord
from .common import heading, printable, two_columns

_ID = 36  # a UUID is shown whole
_VALUE = 20
_FANS = 10  # named; the report names all examples
_CLUSTERS = 5  # named for each kind of change
_PARTS = 3  # of a cluster that are named
_RISKIER, _LESS_RISKY = "red", "blue"


def comparison_tables(record: VersionRecord) -> list[RenderableType]:
    """What a version changes, compact, to print one below the other under ``headline``.

    Ids are shown with their control characters escaped and cut; arrows say what colours say, where there are none.
    """
    comparison = record.comparison
    parts: list[RenderableType] = []
    if any(map(sum, comparison.arm)):
        parts += [heading("ARM before (row) and after (column)"), _arm_matrix(comparison), ""]
    parts += [heading("rows = bad + repeated + fans"), two_columns(_counts(comparison))]
    if comparison.bad_examples:
        parts += ["", heading("some of the bad rows"), *(printable(f"  {row}", 160) for row in comparison.bad_examples)]
    if comparison.examples:
        parts += ["", heading("fans whose ARM changes most"), _fans(record.kind, comparison.examples[:_FANS])]
    if comparison.clusters and (comparison.clusters.split_examples or comparison.clusters.merged_examples):
        parts += ["", heading("clusters"), _clusters(comparison.clusters)]
    return parts


def _arm_matrix(comparison: Comparison) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", *(f"→ {level}" for level in range(1, ARM_LEVELS + 1)), "all"):
        table.add_column(column, justify="right", no_wrap=True)
    before, after = arm_totals(comparison)
    for level, row in enumerate(comparison.arm):
        cells = [_cell(number, level, to) for to, number in enumerate(row)]
        table.add_row(f"{level + 1} →", *cells, Text(f"{before[level]:,}", style="dim"))
    table.add_row("all", *(Text(f"{number:,} ", style="dim") for number in after), Text(f"{sum(after):,}", style="dim"))
    return table


def _cell(number: int, before: int, after: int) -> Text:
    if before == after or not number:
        return Text(f"{number:,} ", style="dim")
    return Text(f"{number:,}{'▲' if after > before else '▼'}", style=_RISKIER if after > before else _LESS_RISKY)


def _counts(comparison: Comparison) -> list[tuple[str, int]]:
    accounts = books(comparison)
    rows = [("rows read", accounts.rows), ("bad", accounts.bad)]
    rows += [(f"  {printable(bad_words(reason), 40).plain}", number) for reason, number in comparison.bad.items()]
    rows += [("repeated", accounts.repeated), ("fans", accounts.fans)]
    if accounts.unaccounted:
        rows.append(("unaccounted for: a defect of fan-identity", accounts.unaccounted))
    rows += [
        ("  new", comparison.added),
        ("  with another value", comparison.changed),
        ("  with the same value", comparison.unchanged),
        ("  never scored", comparison.unknown),
        ("  keeping a newer stored value", comparison.older),
        ("fans that lose their value", comparison.removed),
    ]
    return rows


def _fans(kind: ImportKind, examples: tuple[ArmChange, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    # A narrow terminal folds what is long, instead of cutting figures.
    for column in ("fan", "ARM", "account score", kind.value_column):
        table.add_column(column, no_wrap=column in ("ARM", "account score"), overflow="fold")
    for fan in examples:
        riskier = fan.arm_after > fan.arm_before
        table.add_row(
            printable(fan.global_user_id, _ID),
            Text(
                f"{fan.arm_before} → {fan.arm_after} {'▲' if riskier else '▼'}",
                style=_RISKIER if riskier else _LESS_RISKY,
            ),
            f"{fan.score_before:.2f} → {fan.score_after:.2f}",
            Text.assemble(_value(fan.value_before), " → ", _value(fan.value_after)),
        )
    return table


def _value(value: float | str | None) -> Text:
    if value is None:
        return Text("none")
    return printable(value, _VALUE) if isinstance(value, str) else Text(score_text(value))


def _clusters(clusters: ClusterChanges) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "cluster", "fans", "largest parts"):
        figure = column == "fans"
        table.add_column(column, no_wrap=column in ("", "fans"), overflow="fold", justify="right" if figure else "left")
    for name, examples in (("splits", clusters.split_examples), ("merged", clusters.merged_examples)):
        for cluster, parts in examples[:_CLUSTERS]:
            table.add_row(name, printable(cluster, _VALUE), f"{sum(fans for _, fans in parts):,}", _named_parts(parts))
    return table


def _named_parts(parts: tuple[tuple[str, int], ...]) -> Text:
    """A cluster's largest parts with their fans: ``a 120, b 40, 2 more``; a comparison keeps ``EXAMPLES`` at most."""
    ordered = sorted(parts, key=lambda part: (-part[1], part[0]))
    text = Text(", ").join(printable(part, _VALUE).append(f" {fans:,}") for part, fans in ordered[:_PARTS])
    if len(ordered) <= _PARTS:
        return text
    more = f"{len(ordered) - _PARTS:,}" if len(ordered) < EXAMPLES else "and"
    return text.append(f", {more} more")
