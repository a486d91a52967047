"""Mends how Beam tells a running source's progress; imported by the modules that read unbounded sources.

Beam measures a source's progress in bytes put out. Between counting a bundle's first element and noting its size it
takes the mean size of none, NaN; a runner that asks to split just then (Prism does while a bundle is slow) gets
``ValueError: cannot convert float NaN to integer`` and fails the job. It happens once in some minutes under load. A
progress told as a fraction is not multiplied by sizes. (Beam 2.77: ``total_output_bytes``,
``RestrictionProgress.with_completed``.)
"""

from typing import Any

from apache_beam.io import unbounded_source
from apache_beam.io.iobase import RestrictionProgress


def _progress(tracker: Any) -> RestrictionProgress:
    """Done or not, as Beam has it."""
    return RestrictionProgress(fraction=1.0 if tracker._restriction.is_done else 0.0)


def tell_progress_as_fraction() -> None:
    """Replaces the progress of Beam's tracker of unbounded sources in this process."""
    tracker: Any = unbounded_source._UnboundedSourceRestrictionTracker  # pyright: ignore[reportPrivateUsage]
    tracker.current_progress = _progress
