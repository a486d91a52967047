"""Packages the repository's root as the import package ``fan_identity``.

Beam ships this same file to remote workers with ``--setup_file``, so it stays free of build-time imports.
"""

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGES = [
    "",
    "domain",
    "io",
    "io.dynamodb",
    "io.pubsub",
    "io.sqlite",
    "io.sqs",
    "io.telemetry",
    "transforms",
    "pipelines",
    "pipelines.cli",
    "batch",
    "serving",
    "serving.console",
    "serving.functions",
    "serving.graphql",
    "serving.http",
    "serving.pages",
    "serving.sandbox",
    "serving.tokens",
    "serving.upstreams",
]


def _import_name(folder: str) -> str:
    return f"fan_identity.{folder}" if folder else "fan_identity"


class BuildWithoutSetup(build_py):
    """Leaves setup.py out: it stands in the package's own folder and would be taken for one of its modules."""

    def find_package_modules(self, package, package_dir):
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1] != "setup"]


setup(
    name="fan-identity",
    version="0.1.0",
    description="Tells fans from bots during a ticket sale: Apache Beam pipelines from activity streams to risk scores",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[_import_name(folder) for folder in PACKAGES],
    package_dir={_import_name(folder): folder.replace(".", "/") or "." for folder in PACKAGES},
    package_data={
        "fan_identity": ["py.typed"],
        "fan_identity.io": ["*.json"],
        "fan_identity.batch": ["*.html.j2"],
        "fan_identity.serving.graphql": ["*.graphql"],
        "fan_identity.serving.pages": ["*.html", "*.css", "*.js", "*.svg", "console/*.js"],
    },
    cmdclass={"build_py": BuildWithoutSetup},
    install_requires=[
        "aiohttp>=3.12",
        "apache-beam>=2.77,<3",
        "ariadne>=0.26",
        "boto3>=1.40",
        "cachetools>=6,<7",  # as apache-beam[gcp] has it
        "confluent-kafka>=2.11",
        "crawler-user-agents>=1.40",
        "google-cloud-pubsub>=2.31",
        "httpx>=0.28",
        "jinja2>=3.1",
        "msgspec>=0.21",
        "numpy>=1.26",
        "opentelemetry-exporter-otlp-proto-http>=1.36",
        "opentelemetry-exporter-prometheus>=0.57b0",
        "opentelemetry-sdk>=1.36",
        "plotly>=6",
        "hiredis>=3",
        "httptools>=0.6",
        "pyarrow>=20",
        "pydantic>=2.12",
        "pydantic-settings>=2.12",
        "pyjwt[crypto]>=2.15",
        "python-json-logger>=4",
        "redis[hiredis]>=6.4",
        "rich>=14",
        "stamina>=25.1",
        "starlette>=0.47",
        "typer>=0.20",
        "ua-parser[regex]>=1.0",
        "uvicorn>=0.35",
        "uvloop>=0.21; sys_platform != 'win32'",
        "yggdrasil-engine>=2.0",  # Unleash's evaluation of strategies, as its SDKs have it
    ],
    entry_points={"console_scripts": ["fan-identity=fan_identity.pipelines.cli.main:main"]},
)
