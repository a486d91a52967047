"""The report of an import: what a version would change, as one HTML page that needs nothing else, not even scripts.

Ids come from the files and are hostile: they are shortened and their control characters made visible (``shown``), then
escaped by Jinja; plots hold numbers only. A content security policy forbids the page to load anything, come what may.
"""

from pathlib import Path
from typing import Any, Final

import jinja2

from ..domain.activity import format_time_ms
from ..domain.import_summary import arm_totals, bad_words, books, counted, headline, score_text, verdict
from ..domain.import_verdict import checks
from ..domain.imports import EXAMPLES, Comparison, ImportKind, State, VersionRecord
from ..io.whole_files import write_whole
from .import_charts import check_chart, compact, heat, share_chart, values_chart, values_finding
from .report_text import count, percent, shown

_PARTS: Final = 4  # of a cluster that are named; a cluster of 10,000 fans may fall into as many
_FILES: Final = 20


def write_import_report(path: Path, record: VersionRecord, *, refused: str | None, dry_run: bool) -> None:
    """Writes the report, wholly or not at all: an older one stays until the new one is complete.

    Args:
        path: of the HTML file.
        record: of the version, with its comparison and what that was held against.
        refused: why it must not become active, in one line; None where it may.
        dry_run: whether the run ends after the report.

    Raises:
        UsageError: the file cannot be written.
    """
    page = render_import_report(record, refused=refused, dry_run=dry_run)
    write_whole(path, page.encode(errors="backslashreplace"), "report")


def render_import_report(record: VersionRecord, *, refused: str | None, dry_run: bool) -> str:
    """The report as HTML; the arguments are those of ``write_import_report``."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        shown=shown, bad_words=bad_words, count=count, percent=percent, compact=compact, value=_value, utc=_utc
    )
    template = environment.from_string(Path(__file__).with_name("import_report.html.j2").read_text(encoding="utf-8"))
    comparison = record.comparison
    before, after = arm_totals(comparison)
    return template.render(
        record=record,
        comparison=comparison,
        clusters=comparison.clusters,
        is_cluster=record.kind is ImportKind.CLUSTER,
        title="Import of clusters" if record.kind is ImportKind.CLUSTER else "Import of bot-or-not scores",
        verdict=verdict(record, refused=refused, dry_run=dry_run),
        tone=_tone(record, refused=refused, dry_run=dry_run),
        refused=refused,
        sentences=headline(record),
        matrix=_matrix(comparison),
        before=before,
        after=after,
        values_finding=values_finding(record),
        values=values_chart(record) if comparison.values_after else "",
        checks=[(check, check_chart(check)) for check in checks(comparison, record.thresholds)],
        changes=_changes(comparison),
        books=books(comparison),
        splits=[_parts(*example) for example in comparison.clusters.split_examples] if comparison.clusters else [],
        merges=[_parts(*example) for example in comparison.clusters.merged_examples] if comparison.clusters else [],
        share=share_chart,
        counted=counted,
        files=record.files[:_FILES],
        more_files=max(0, len(record.files) - _FILES),
    )


def _tone(record: VersionRecord, *, refused: str | None, dry_run: bool) -> str:
    """How the verdict looks: ``bad``, ``good`` or ``still`` (nothing was done)."""
    if refused is not None:
        return "bad"
    return "good" if record.state is State.ACTIVE and not dry_run else "still"


def _matrix(comparison: Comparison) -> list[list[tuple[int, str, int]]]:
    """The ARM matrix's cells: fans, where they go (``up``, ``down``, ``same``), and the shade."""
    largest = max(
        number for before, row in enumerate(comparison.arm) for after, number in enumerate(row) if before != after
    )
    return [
        [
            (number, "same", 0)
            if before == after
            else (number, "up" if after > before else "down", heat(number, largest))
            for after, number in enumerate(row)
        ]
        for before, row in enumerate(comparison.arm)
    ]


def _changes(comparison: Comparison) -> list[tuple[str, str, int]]:
    """What becomes of the fans of both versions: name, meaning, number."""
    return [
        ("Same value", "in both versions", comparison.unchanged),
        ("Another value", "in both versions", comparison.changed),
        ("New", "no value in the active version", comparison.added),
        ("Removed", "no value in the new version", comparison.removed),
    ]


def _parts(name: str, parts: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """A cluster that split or merged: its id and its largest parts; a comparison keeps ``EXAMPLES`` of them at most."""
    ordered = sorted(parts, key=lambda part: (-part[1], part[0]))
    return {
        "name": name,
        "perhaps_more": len(parts) >= EXAMPLES,
        "fans": sum(fans for _, fans in parts),
        "sizes": [fans for _, fans in ordered],
        "named": ordered[:_PARTS],
        "others": len(ordered[_PARTS:]),
        "others_fans": sum(fans for _, fans in ordered[_PARTS:]),
    }


def _value(value: float | str | None) -> str:
    """A bot-or-not score or a cluster id; ``none`` where the version has no value for the fan."""
    if value is None:
        return "none"
    return shown(value) if isinstance(value, str) else score_text(value)


def _utc(milliseconds: int) -> str:
    """Epoch milliseconds as a time for people, to the second."""
    return f"{format_time_ms(milliseconds)[:19].replace('T', ' ')} UTC" if milliseconds else "unknown"
