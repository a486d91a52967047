"""A split at the wrong moment does not fail a job."""

import apache_beam.transforms.sideinputs  # noqa: F401 - without it the next import is circular
import pytest
from apache_beam.io.iobase import RestrictionProgress
from apache_beam.io.unbounded_source import _UnboundedSourceRestriction, _UnboundedSourceRestrictionTracker
from apache_beam.runners.worker.bundle_processor import DataInputOperation

from fan_identity.transforms.sources import ON_CLUSTER, PollingSource

NAN = float("nan")
"""Beam's mean size of no elements."""


def split(progress):
    """What Prism asks for, as Beam computes it for the only element of a bundle."""
    return DataInputOperation._compute_split(0, progress.with_completed(NAN).fraction_completed, 1, 0.5, 1)


@pytest.mark.parametrize("done", [False, True])
def test_a_split_before_the_first_size_is_known_is_declined(done):
    tracker = _UnboundedSourceRestrictionTracker(_UnboundedSourceRestriction(PollingSource(ON_CLUSTER), is_done=done))
    assert split(tracker.current_progress()) is None


def test_beam_still_fails_by_itself():
    """Where this fails, Beam has mended it, and ours can go."""
    with pytest.raises(ValueError, match="NaN"):
        split(RestrictionProgress(completed=0.0, remaining=1.0))
