"""The parts around the workers, by the settings that name them, and whether they answer: all asked side by side.

A part is a thing that can be down: an address, whatever number of settings name it. It is asked in a thread of its
own, again and again until it answers or ``probe_deadline`` is over; who hangs is left behind, so a round takes no
longer than the deadline whatever happens.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ..domain.liveness import Probed
from .addresses import parse_address
from .backends import CACHES, QUEUES, STREAMS, TABLES, scheme_of
from .errors import FanIdentityError, UsageError
from .probe_calls import Question, question_of
from .probe_http import ask_http, ask_model_file, ask_unleash
from .settings import Settings
from .telemetry import metrics

STORES: Final[Mapping[str, Sequence[str]]] = {
    "store": ("sqlite",),
    **dict.fromkeys(
        ("table", "staging_table", "verification_table", "dead_letters", "operations", "arai", "positions"), TABLES
    ),
    **dict.fromkeys(("queue", "on_demand_queue", "staging_queue", "rescore_queue", "identity_queue"), QUEUES),
    "cache": CACHES,
    "source": (*STREAMS, *QUEUES),
}
"""By setting the schemes of its addresses; the first setting that names a part gives the part its name."""

SERVICES: Final = ("accounts", "identity")
MODELS: Final = ("model", "staging_model")

_PAUSE_SECONDS: Final = 0.25
_LATE_SECONDS: Final = 0.1
_MOST_HANGING: Final = 4
_PROBLEM_CHARACTERS: Final = 500


@dataclass(frozen=True)
class Part:
    """Something that can be down.

    Attributes:
        name: the first setting that names it.
        address: as written, options and credentials left out.
        ask: asks it once.
        settings: all settings that name it.
        text: the address as written; never shown.
    """

    name: str
    address: str
    ask: Question = field(repr=False)
    settings: tuple[str, ...]
    text: str = field(repr=False, default="")

    def is_at(self, text: str) -> bool:
        """Whether an address is this part's."""
        return _same(self.text) == _same(text)


class PartList:
    """Parts as they are named, each once.

    Args:
        seconds: what a part has to answer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._parts: dict[str, Part] = {}

    def add(self, setting: str, text: str | None, ask: Question | None = None) -> None:
        """Adds the part of an address; nothing where there is none. A known one is named once more.

        Args:
            setting: that names it.
            text: its address.
            ask: how it is asked, where that is not told by its scheme.

        Raises:
            UsageError: the address is wrong.
        """
        if text is None:
            return
        key = _same(text)
        known = self._parts.get(key)
        if known is not None:
            self._parts[key] = replace(known, settings=(*known.settings, setting))
            return
        question = ask or question_of(text, _flag(setting), self._seconds)
        self._parts[key] = Part(setting, bare_address(text), question, (setting,), text)

    @property
    def parts(self) -> list[Part]:
        """All of them, in the order they were named."""
        return list(self._parts.values())


def named_parts(settings: Settings) -> PartList:
    """The parts the workers' settings name.

    Raises:
        UsageError: an address is wrong; names the setting.
    """
    found = PartList(settings.probe_deadline.total_seconds())
    for setting, schemes in STORES.items():
        text: str | None = getattr(settings, setting)
        if text is None or (setting == "source" and scheme_of(text) in ("", "file")):
            continue
        if (scheme := parse_address(text, _flag(setting)).scheme) not in schemes:
            known = " or ".join(f"{one}://…" for one in schemes)
            raise UsageError(f"--{_flag(setting)}: {scheme}:// is not supported here; use {known}")
        found.add(setting, text)
    for setting in MODELS:
        text = getattr(settings, setting)
        if text is None:
            continue
        over_http = text.startswith(("http://", "https://"))
        options = frozenset({"batch"})
        found.add(
            setting,
            text,
            ask_http(text, _flag(setting), "model", options=options) if over_http else ask_model_file(text, setting),
        )
    for setting in SERVICES:
        text = getattr(settings, setting)
        if text is not None:
            found.add(setting, text, ask_http(text, _flag(setting), setting))
    if settings.flags is not None:
        found.add("flags", settings.flags, ask_unleash(settings.flags, "flags"))
    return found


def parts_of(settings: Settings) -> list[Part]:
    """The parts the workers' settings name, in the order of importance.

    Raises:
        UsageError: an address is wrong; names the setting.
    """
    return named_parts(settings).parts


class Prober:
    """Asks parts, round after round.

    Args:
        parts: which.
        seconds: what a part has to answer.
    """

    def __init__(self, parts: Sequence[Part], seconds: float) -> None:
        self._parts = parts
        self._seconds = seconds
        self._hanging: dict[str, list[threading.Thread]] = {part.name: [] for part in parts}

    def round(self) -> list[Probed]:
        """Asks every part once; takes no longer than the deadline and a tenth of a second.

        Returns:
            What came of it, in the parts' order. Each is told to the metrics too.
        """
        answers: dict[str, Probed] = {}
        changed = threading.Condition()

        def ask(part: Part) -> None:
            probed = _asked(part, self._seconds)
            with changed:
                answers[part.name] = probed
                changed.notify()

        began = time.monotonic()
        for part in self._parts:
            hanging = self._hanging[part.name] = [one for one in self._hanging[part.name] if one.is_alive()]
            if len(hanging) >= _MOST_HANGING:
                text = f"no answer; {len(hanging)} earlier probes still wait for one"
                answers[part.name] = _down(part, 0.0, text)
                continue
            thread = threading.Thread(target=ask, args=(part,), name=f"probe {part.name}", daemon=True)
            thread.start()
            hanging.append(thread)
        with changed:
            changed.wait_for(lambda: len(answers) == len(self._parts), self._seconds + _LATE_SECONDS)
            took = time.monotonic() - began
            late = f"no answer in {self._seconds:.3g} s"
            found = [answers.get(part.name) or _down(part, took, late) for part in self._parts]
        for one in found:
            metrics.set_probe(one.part, one.up, one.seconds)
        return found


def _asked(part: Part, seconds: float) -> Probed:
    """Asks until there is a good answer, or no time is left for another question."""
    began = time.monotonic()
    deadline = began + seconds
    while True:
        problem = _problem(part, deadline - time.monotonic())
        now = time.monotonic()
        if problem is None:
            return Probed(part.name, part.address, True, now - began, settings=part.settings)
        if isinstance(problem, UsageError) or deadline - now < seconds / 2 + _PAUSE_SECONDS:
            return _down(part, now - began, _text_of(problem))
        time.sleep(_PAUSE_SECONDS)


def _problem(part: Part, seconds: float) -> Exception | None:
    try:
        part.ask(seconds)
    except Exception as error:  # whatever it is, the part gives no good answer
        return error
    return None


def _text_of(problem: Exception) -> str:
    """Errors of ours hold no secrets; the text of others may hold anything."""
    text = str(problem) if isinstance(problem, FanIdentityError) else f"the probe failed ({type(problem).__name__})"
    return text[:_PROBLEM_CHARACTERS]


def _down(part: Part, seconds: float, problem: str) -> Probed:
    return Probed(part.name, part.address, False, seconds, problem, part.settings)


def _flag(setting: str) -> str:
    return setting.replace("_", "-")


def _same(text: str) -> str:
    """What two addresses have in common that are down together: an SQLite file is one thing, whatever is read of it."""
    return text.partition("?")[0] if text.startswith("sqlite:") else text


def bare_address(text: str) -> str:
    """An address without options and credentials."""
    if "://" not in text:
        return text
    address = parse_address(text, "address")
    host, slash, rest = address.target.partition("/")
    return f"{address.scheme}://{host.rpartition('@')[2]}{slash}{rest}"
