"""The summary of a job: one shape for backfills, rescoring, redrives, imports, cluster builds and erasures.

As JSON for the scheduler that started the job, as a page for who looks at it in the morning. Whatever names something
in the data is hostile: it is shortened and its control characters made visible (``shown``), then escaped by Jinja; the
page's content security policy forbids it to load anything.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec

from .. import __version__
from ..domain.activity import format_time_ms
from ..io.clock import now_ms
from ..io.settings import Settings
from ..io.whole_files import write_whole
from .report_text import count, shown, words

_REJECTED: Final = "rejected"
_DEAD_LETTERED: Final = "dead_lettered"
_LEAST_BAR: Final = 0.5  # per cent: a count that is not 0 is seen beside one that is a thousand times as large
_CREDENTIALS: Final = re.compile(r"(://[^/?#@:]*):[^/?#@]*@")
_SECRET_OPTION: Final = re.compile(r"(?i)([?&][^=&]*(?:secret|password|token|key)[^=&]*)=[^&]*")
_MINUTE: Final = 60
_FANS: Final = frozenset({"internal_accounts"})
"""Settings that hold fans' ids: only how many is told."""


class Outcome(StrEnum):
    """How a job ended, in words."""

    DONE = "done"
    DEAD_LETTERS = "done with dead letters"
    NOTHING = "nothing to do"
    DRY_RUN = "dry run"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def good(self) -> bool:
        """Whether nobody has to look into it."""
        return self in (Outcome.DONE, Outcome.NOTHING, Outcome.DRY_RUN)


class JobSummary(msgspec.Struct, frozen=True, rename="camel"):
    """What a job did.

    Attributes:
        job: the job, as its command names it: ``backfill``, ``imports cluster``.
        started_at: epoch milliseconds.
        outcome: how it ended.
        exit_code: of the command: 0 done, 1 dead letters, 2 bad usage or refused, 3 a backend out of reach.
        counts: numbers by name, in the order to show them; ``rejected.<reason>`` and ``dead_lettered.<reason>`` as in
            ``transforms``.
        settings: what it ran with, without secrets (``shown_settings``).
        notes: sentences, the most important first. No fan's id: summaries are kept and sent around.
        links: by name, files and addresses to go on from: reports, the command that redrives.
        ended_at: epoch milliseconds; now where not given.
        version: of the program.
    """

    job: str
    started_at: int
    outcome: Outcome
    exit_code: int
    counts: Mapping[str, int] = {}
    settings: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
    links: Mapping[str, str] = {}
    ended_at: int = msgspec.field(default_factory=now_ms)
    version: str = __version__

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(self.ended_at - self.started_at, 0) / 1_000

    def as_json(self) -> dict[str, Any]:
        """The summary for machines: fields in camelCase, times in ISO 8601."""
        return {
            **msgspec.to_builtins(self),
            "startedAt": format_time_ms(self.started_at),
            "endedAt": format_time_ms(self.ended_at),
            "seconds": self.seconds,
        }

    def write_json(self, path: Path, setting: str = "summary") -> None:
        """Writes it as one JSON object, wholly or not at all.

        Raises:
            UsageError: it cannot be written there.
        """
        write_whole(path, msgspec.json.format(msgspec.json.encode(self.as_json())) + b"\n", setting)

    def write_html(self, path: Path, setting: str = "report") -> None:
        """Writes it as a page that needs nothing else, wholly or not at all.

        Raises:
            UsageError: it cannot be written there.
        """
        write_whole(path, self.as_html().encode(errors="backslashreplace"), setting)

    def as_html(self) -> str:
        """The summary for people."""
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters.update(shown=shown, count=count, moment=_moment)
        template = environment.from_string(Path(__file__).with_name("job.html.j2").read_text(encoding="utf-8"))
        return template.render(job=self, bars=_bars(self.counts), took=duration_text(self.seconds))


class _Bar(msgspec.Struct, frozen=True):
    """A count as a bar: its name, the group it belongs to ("" for none), and its length in per cent of the longest."""

    name: str
    group: str
    number: int
    length: float


def _bars(counts: Mapping[str, int]) -> list[_Bar]:
    longest = max(counts.values(), default=0)
    bars: list[_Bar] = []
    for counter, number in counts.items():
        group, _, reason = counter.partition(".")
        known = group if reason and group in (_REJECTED, _DEAD_LETTERED) else ""
        length = max(100 * number / longest, _LEAST_BAR) if number > 0 else 0.0
        bars.append(_Bar(words(reason) if known else counter, known, number, round(length, 2)))
    return bars


def duration_text(seconds: float) -> str:
    """A duration for people, in the two greatest units.

    >>> duration_text(0.25), duration_text(61), duration_text(7322)
    ('0.25 s', '1 min 1 s', '2 h 2 min')
    """
    if seconds < _MINUTE:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _moment(milliseconds: int) -> str:
    return format_time_ms(milliseconds)[:19].replace("T", " ") + " UTC"


def shown_settings(settings: Settings) -> dict[str, str]:
    """The settings that were given, as they may be shown: no passwords or tokens of addresses, no fans' ids."""
    given: dict[str, str] = {}
    for name in sorted(settings.model_fields_set):
        value: Any = getattr(settings, name)
        if value is not None:
            given[name] = f"{len(value)} given" if name in _FANS else without_secrets(str(value))
    return given


def without_secrets(address: str) -> str:
    """An address with dots where a password or an option that holds a secret stands.

    >>> without_secrets("redis://user:pass@host/0"), without_secrets("https://model/score?token-env=A&api-key=B")
    ('redis://user:…@host/0', 'https://model/score?token-env=…&api-key=…')
    """
    return _SECRET_OPTION.sub(r"\1=…", _CREDENTIALS.sub(r"\1:…@", address))
