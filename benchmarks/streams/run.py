"""``make bench-streams``: both halves of the stream on real servers, each beside peers written by hand."""

import argparse
import platform
from importlib.metadata import version

from ..run import _machine  # pyright: ignore[reportPrivateUsage]
from . import enqueue, score
from .systems import use_local_servers

PARTS = ("enqueue", "score", "latency")


def main() -> None:
    """Runs the parts named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all where none")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of each contender")
    parser.add_argument("--activities", type=int, default=20_000, help="of part enqueue")
    parser.add_argument("--users", type=int, default=2_000, help="whose they are")
    parser.add_argument("--messages", type=int, default=3_000, help="of part score")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    use_local_servers()
    print(f"{_machine()}; Python {platform.python_version()}, Beam {version('apache-beam')}")
    if "enqueue" in parts:
        enqueue.run(arguments.rounds, arguments.activities, arguments.users)
    if "score" in parts:
        score.run(arguments.rounds, arguments.messages, arguments.messages // 3)


if __name__ == "__main__":
    main()
