"""What ends a command early: the user's mistakes, and backends out of reach. Each says it in one line."""

from typing import ClassVar


class FanIdentityError(Exception):
    """An expected failure: its message is one line for people and needs no stack.

    Constructed with the message alone, so that it survives the way between Beam's processes (pickling).

    Attributes:
        exit_code: what the command line ends with. 0 and 1 are taken by "done" and "done with dead letters".
    """

    exit_code: ClassVar[int] = 3


def text_of(problem: Exception) -> str:
    """A problem for the log. Errors of ours have no secrets in them; the text of others may hold anything."""
    return str(problem) if isinstance(problem, FanIdentityError) else type(problem).__name__


class UsageError(FanIdentityError):
    """The user's mistake: the message names the setting or file and the remedy."""

    exit_code: ClassVar[int] = 2


class BackendUnavailableError(FanIdentityError):
    """A backend is out of reach, a disk is full, a file vanished: the same command may work later."""

    exit_code: ClassVar[int] = 3


class UnavailableError(BackendUnavailableError):
    """A data source of the API gave no answer in its time, or none that can be used.

    Args:
        source: its name, as the API's errors and extensions show it: ``arm``, ``campaigns`` …
        problem: one line without personal data, for the log.
    """

    def __init__(self, source: str, problem: str = "no answer") -> None:
        super().__init__(source, problem)
        self.source = source
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.source}: {self.problem}"
