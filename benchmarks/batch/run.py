"""``make bench-batch``: imports and clusters beside peers, on this machine."""

import argparse
import platform
from importlib.metadata import version

from ..run import machine  # pyright: ignore[reportPrivateUsage]
from ..streams.systems import use_local_servers
from . import clusters, imports, rescore

PARTS = ("dynamodb", "sqlite", "redis", "growth", "clusters", "rescore")

_PLAIN_EDGES = 5_000
"""Of the label propagation that is written with an element a record; it takes minutes for more."""

_FANS = 6_000
_LIVE_RATE = 50
_LIVE_SECONDS = 12
"""Of part rescore: fans to rescore, live activities a second, and for how long."""


def main() -> None:
    """Runs the parts named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all where none")
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds of each contender")
    parser.add_argument("--rows", type=int, default=30_000, help="of part dynamodb")
    parser.add_argument("--sqlite-rows", type=int, default=300_000, help="of part sqlite")
    parser.add_argument("--entries", type=int, default=100_000, help="of part redis")
    parser.add_argument("--small", type=int, default=500_000, help="rows of part growth")
    parser.add_argument("--large", type=int, default=5_000_000, help="rows of part growth")
    parser.add_argument("--edges", type=int, default=2_000_000, help="of part clusters")
    arguments = parser.parse_args()
    parts = arguments.parts or PARTS
    use_local_servers()
    print(f"{machine()}; Python {platform.python_version()}, Beam {version('apache-beam')}")
    if "dynamodb" in parts:
        imports.dynamodb(arguments.rows, arguments.rounds)
    if "sqlite" in parts:
        imports.sqlite(arguments.sqlite_rows, arguments.rounds)
    if "redis" in parts:
        imports.redis(arguments.entries, arguments.rounds)
    if "growth" in parts:
        imports.growth(arguments.small, arguments.large)
    if "clusters" in parts:
        clusters.run(arguments.rounds, arguments.edges, _PLAIN_EDGES)
    if "rescore" in parts:
        rescore.run(arguments.rounds, _FANS, _LIVE_RATE, _LIVE_SECONDS)


if __name__ == "__main__":
    main()
