"""Fetches GraphiQL's files into ``serving/pages/vendor/`` with npm, each checked against its pinned hash.

``npm pack`` alone: nothing is installed, and no script of a package runs. Exit code 1 where npm is missing, gives
nothing, or gives other files than the pinned ones.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from fan_identity.serving.pages.graphiql import ASSETS, VENDOR

_PAGES = Path(__file__).parents[2] / "serving" / "pages"
_PATIENCE = 120.0


def main() -> int:
    """Fetches what is not there yet."""
    if VENDOR.complete(_PAGES):
        _say("GraphiQL is there")
        return 0
    npm = shutil.which("npm")
    if npm is None:
        _complain("npm is needed to fetch GraphiQL; without it the page takes the same files from a CDN")
        return 1
    target = _PAGES / VENDOR.folder
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted({f"{asset.package}@{asset.version}" for asset in ASSETS}):
            command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, name]
            done = subprocess.run(  # noqa: S603 - npm, with names and versions of our own
                command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
            if done.returncode:
                _complain(f"npm has no {name}: {(done.stderr or done.stdout).strip()[-300:]}")
                return 1
        for asset in ASSETS:
            with tarfile.open(Path(folder) / f"{asset.package}-{asset.version}.tgz") as packed:
                member = packed.extractfile(f"package/{asset.path}")
                content = b"" if member is None else member.read()
            if not asset.matches(content):
                _complain(f"{asset.package}@{asset.version}: {asset.path} has not the pinned hash")
                return 1
            (target / asset.name).write_bytes(content)
            _say(f"{asset.package}@{asset.version}: {asset.name}, {len(content):,} bytes")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _complain(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
