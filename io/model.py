"""The embedded model: the scorecard file that comes with the package, or another one."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ..domain.records import Failure
from ..domain.scorecard import ModelScore, Scorecard
from .ports import ScoringRequest


class EmbeddedModel:
    """Scores profiles in this process, without a server."""

    def __init__(self, scorecard: Scorecard) -> None:
        self.scorecard = scorecard

    @classmethod
    def packaged(cls) -> "EmbeddedModel":
        """The scorecard in ``io/scorecard.json``, trained by ``batch/train_scorecard.py``."""
        return cls(Scorecard.from_json(files("fan_identity.io").joinpath("scorecard.json").read_bytes()))

    @classmethod
    def from_file(cls, path: Path) -> "EmbeddedModel":
        """A scorecard file.

        Raises:
            OSError: it cannot be read.
            ScorecardError: it is no scorecard.
        """
        return cls(Scorecard.from_json(path.read_bytes()))

    def score(self, requests: Sequence[ScoringRequest]) -> list[ModelScore | Failure]:
        """One score per request, in order; there is always one."""
        score = self.scorecard.score
        return [score(request.arai.profile) for request in requests]
