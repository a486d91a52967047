"""``make bench-streams``: both halves of the stream on real servers, each beside peers written by hand."""

import argparse
import platform
from importlib.metadata import version

from ..run import machine  # pyright: ignore[reportPrivateUsage]
from . import enqueue, latency, score
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
    parser.add_argument("--seconds", type=int, default=20, help="of part latency, for each half")
    parser.add_argument(
        "--enqueue-rate", type=float, default=0.0, help="activities/s of part latency; else half of ours"
    )
    parser.add_argument("--score-rate", type=float, default=0.0, help="messages/s of part latency; else half of ours")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    use_local_servers()
    print(f"{machine()}; Python {platform.python_version()}, Beam {version('apache-beam')}")
    enqueue_rate, score_rate = 2 * arguments.enqueue_rate, 2 * arguments.score_rate
    needed = "latency" in parts
    if "enqueue" in parts or (needed and not enqueue_rate):
        enqueue_rate = enqueue.run(arguments.rounds, arguments.activities, arguments.users)
    if "score" in parts or (needed and not score_rate):
        score_rate = score.run(arguments.rounds, arguments.messages, arguments.messages // 3)
    if needed:
        latency.run(
            arguments.enqueue_rate or enqueue_rate / 2, arguments.score_rate or score_rate / 2, arguments.seconds
        )


if __name__ == "__main__":
    main()
