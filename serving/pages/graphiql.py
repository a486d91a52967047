"""GraphiQL: which versions, where they come from, and the page around them.

``make graphiql`` puts the four files into ``serving/pages/vendor/``; there the page needs no network. Without them it
names the same files on a public CDN, and the browser runs only what has the hashes below.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

CDN: Final = "https://cdn.jsdelivr.net/npm"


class Asset(msgspec.Struct, frozen=True):
    """One file of a package of npm's registry.

    Attributes:
        package: its name.
        version: pinned.
        path: inside the package.
        integrity: its hash, as browsers take it (Subresource Integrity).
    """

    package: str
    version: str
    path: str
    integrity: str

    @property
    def name(self) -> str:
        """The file's name in ``vendor/``."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def url(self) -> str:
        """Where the CDN has it."""
        return f"{CDN}/{self.package}@{self.version}/{self.path}"

    def matches(self, content: bytes) -> bool:
        """Whether this is the pinned file, byte for byte."""
        return self.integrity == "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


ASSETS: Final = (
    Asset(
        "react",
        "18.3.1",
        "umd/react.production.min.js",
        "sha384-DGyLxAyjq0f9SPpVevD6IgztCFlnMF6oW/XQGmfe+IsZ8TqEiDrcHkMLKI6fiB/Z",
    ),
    Asset(
        "react-dom",
        "18.3.1",
        "umd/react-dom.production.min.js",
        "sha384-gTGxhz21lVGYNMcdJOyq01Edg0jhn/c22nsx0kyqP0TxaV5WVdsSH1fSDUf5YJj1",
    ),
    Asset(
        "graphiql",
        "3.9.0",
        "graphiql.min.js",
        "sha384-8NGfVj4CVlqHajlZj+bPJT4thxPMHMJYn7DWK2CvtopLd02E7qsPHazniBYvVjOO",
    ),
    Asset(
        "graphiql",
        "3.9.0",
        "graphiql.min.css",
        "sha384-QMux00XgRtwRLSYIY3kw2rj1ovk5AuuliAchk+HSQbqdbGFnz9GYuqIlOqxhwCE2",
    ),
)
"""React 18 and GraphiQL 3, the last major versions with a build that needs no bundler (UMD). MIT licence."""


@dataclass(frozen=True)
class Vendor:
    """The folder of fetched files.

    Attributes:
        folder: beside the pages; not in the repository.
        assets: what belongs in it.
    """

    folder: str
    assets: tuple[Asset, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The files' paths, from the pages' folder."""
        return tuple(f"{self.folder}/{asset.name}" for asset in self.assets)

    def complete(self, pages: Path) -> bool:
        """Whether all of them are there, and are the pinned ones."""
        paths = [(pages / self.folder / asset.name, asset) for asset in self.assets]
        return all(path.is_file() and asset.matches(path.read_bytes()) for path, asset in paths)


VENDOR: Final = Vendor("vendor", ASSETS)


def graphiql_page(template: str, *, vendored: bool) -> str:
    """The page.

    Args:
        template: HTML with ``<!-- assets -->`` where the tags go.
        vendored: whether the files are served here; else they come from the CDN.
    """
    return template.replace("<!-- assets -->", "\n".join(_tag(asset, vendored=vendored) for asset in ASSETS))


def _tag(asset: Asset, *, vendored: bool) -> str:
    where = f"pages/{VENDOR.folder}/{asset.name}" if vendored else asset.url
    checked = f'integrity="{asset.integrity}" crossorigin="anonymous"'
    if asset.name.endswith(".css"):
        return f'<link rel="stylesheet" href="{where}" {checked}>'
    return f'<script src="{where}" {checked} defer></script>'


def graphiql_policy(*, vendored: bool) -> str:
    """The page's content security policy.

    GraphiQL's editor sets style attributes and its style sheet brings its fonts along; scripts are files, and nothing
    but this server is asked for data.
    """
    of_cdn: dict[str, str] = dict.fromkeys((".js", ".css"), "")
    if not vendored:
        for asset in ASSETS:
            of_cdn[Path(asset.name).suffix] += f" {asset.url}"
    return (
        f"default-src 'none'; script-src 'self'{of_cdn['.js']}; style-src 'self' 'unsafe-inline'{of_cdn['.css']}; "
        "font-src data:; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
