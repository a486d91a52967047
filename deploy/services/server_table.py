"""The real servers that tests use: versions, ports, how each is fetched, started and asked whether it serves."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import postgresql
from fetching import GoBuild, GoInstall, Maven, Npm, Recipe, UnavailableError, Venv, installed, last_line
from probes import HOST, Probe, answers_http, answers_http2, answers_kafka, answers_postgresql, answers_redis
from processes import Launch

HERE: Final = Path(__file__).resolve().parent
CACHE_VARIABLE: Final = "FAN_IDENTITY_SERVICES_CACHE"
_CLUSTER: Final = "ZmFuLWlkZW50aXR5LXN2Yw"
"""Kafka's cluster id, 16 bytes as it spells them. A random one may begin with a dash, like an option."""

_SMALL_HEAP: Final = ("-Xmx256m", "-XX:+UseSerialGC")


def root() -> Path:
    """The folder that programs, data and logs are kept in: ``.services/`` in the checkout, or the variable's."""
    return Path(os.environ.get(CACHE_VARIABLE) or HERE.parents[1] / ".services").resolve()


@dataclass(frozen=True)
class Server:
    """One server.

    Args:
        name: its name on the command line.
        port: on 127.0.0.1.
        version: what of it runs.
        mark: text that its command line in ``/proc`` holds.
        launch: makes what it needs in its folder (a fresh one after ``stop``) and says how to start it.
        probe: whether it serves yet.
        recipe: how its program is got; None for what Debian packages.
        after: servers it needs.
        shown: its address as a client takes it.
        first_signal: what asks it to end.
    """

    name: str
    port: int
    version: str
    mark: str
    launch: "Callable[[Server], Launch]"
    probe: Probe
    recipe: Recipe | None = None
    after: tuple[str, ...] = ()
    shown: str = "{address}"
    first_signal: signal.Signals = signal.SIGTERM

    @property
    def address(self) -> str:
        """As a client takes it."""
        return self.shown.format(address=f"{HOST}:{self.port}")

    @property
    def program(self) -> Path:
        """The folder of its program, which stays."""
        return root() / "parts" / f"{self.name}-{self.version}"

    @property
    def run(self) -> Path:
        """The folder it runs in: ``pid``, ``log``, ``data/``."""
        return root() / "run" / self.name

    @property
    def data(self) -> Path:
        """What it stores; gone after ``stop``."""
        return self.run / "data"


def _redis(server: Server) -> Launch:
    program = installed(lambda: shutil.which("redis-server"), "redis-server", server.run / "fetch.log")
    arguments = (
        "--port",
        str(server.port),
        "--bind",
        HOST,
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(server.data),
    )
    return Launch((program, *arguments))


def _java(
    server: Server, *arguments: str, heap: tuple[str, ...] = _SMALL_HEAP, classes: str = "lib/*"
) -> tuple[str, ...]:
    class_path = ":".join(str(server.program / part) for part in classes.split(":"))
    return ("java", *heap, "-cp", class_path, *arguments)


def _elasticmq(server: Server) -> Launch:
    settings = f"-Dconfig.file={HERE / 'elasticmq.conf'}"
    return Launch(_java(server, "org.elasticmq.server.Main", heap=(*_SMALL_HEAP, settings)))


def _kafka(server: Server) -> Launch:
    settings = str(HERE / "kafka.properties")
    if not (server.data / "meta.properties").is_file():
        log = server.run / "format.log"
        with log.open("wb") as output:
            done = subprocess.run(  # noqa: S603 - a command of our own
                _java(server, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", settings),
                cwd=server.run,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise UnavailableError(f"kafka.tools.StorageTool ended with {done.returncode}: {last_line(log)}")
    return Launch(_java(server, "kafka.Kafka", settings, heap=("-Xms128m", "-Xmx512m")))


def _dynamodb(server: Server) -> Launch:
    native = f"-Djava.library.path={server.program / 'native'}"
    arguments = ("-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(server.port))
    heap = (*_SMALL_HEAP, native)
    return Launch(_java(server, "LoopbackDynamoDb", *arguments, heap=heap, classes="classes:lib/*"))


def _kinesalite(server: Server) -> Launch:
    program = server.program / "node_modules" / "kinesalite" / "cli.js"
    at_once = [text for what in ("create", "delete", "update") for text in (f"--{what}StreamMs", "50")]
    arguments = ("--port", str(server.port), "--shardLimit", "1000", *at_once)
    return Launch(("node", "--require", str(HERE / "listen_loopback.cjs"), str(program), *arguments))


def _pubsub(server: Server) -> Launch:
    return Launch((str(server.program / "bin" / "pubsub"), f"{HOST}:{server.port}"))


def _toxiproxy(server: Server) -> Launch:
    return Launch((str(server.program / "bin" / "server"), "-host", HOST, "-port", str(server.port)))


def _versitygw(server: Server) -> Launch:
    objects, about = server.data / "objects", server.data / "about"  # objects' tags: no file system needs attributes
    for folder in (objects, about):
        folder.mkdir(parents=True, exist_ok=True)
    environment = {"ROOT_ACCESS_KEY": "test", "ROOT_SECRET_KEY": "test"}
    arguments = ("--port", f"{HOST}:{server.port}", "--quiet", "posix", "--sidecar", str(about), str(objects))
    return Launch((str(server.program / "bin" / "versitygw"), *arguments), environment)


def _gcs(server: Server) -> Launch:
    at = f"{HOST}:{server.port}"
    arguments = ("-scheme", "http", "-host", HOST, "-port", str(server.port), "-public-host", at, "-backend", "memory")
    return Launch((str(server.program / "bin" / "fake-gcs-server"), *arguments))


def _ministack(server: Server) -> Launch:
    environment = {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(server.port),
        "S3_DATA_DIR": str(server.data),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    return Launch((str(server.program / "bin" / "python"), "-m", "ministack"), environment)


def _postgresql(server: Server) -> Launch:
    return postgresql.launch(server.run, server.port)


def _unleash(server: Server) -> Launch:
    database = BY_NAME["postgresql"]
    environment = {
        "DATABASE_URL": postgresql.database_url(database.run, database.port),
        "DATABASE_SSL": "false",
        "HTTP_HOST": HOST,
        "HTTP_PORT": str(server.port),
        "INIT_BACKEND_API_TOKENS": "default:development.unleash-test-token",
        "INIT_ADMIN_API_TOKENS": "*:*.unleash-admin-token",
        "CHECK_VERSION": "false",
        "SEND_TELEMETRY": "false",
        "NODE_ENV": "production",
        "LOG_LEVEL": "info",
    }
    return Launch(("node", str(server.program / "node_modules" / "unleash-server" / "dist" / "server.js")), environment)


SERVERS: Final = (
    Server("redis", 16390, "debian", "redis-server", _redis, answers_redis),
    Server(
        "elasticmq",
        19324,
        "1.7.1",
        "org.elasticmq.server.Main",
        _elasticmq,
        answers_http("/?Action=ListQueues", 200),
        Maven(("org.elasticmq:elasticmq-server_3:1.7.1",)),
        shown="http://{address}",
    ),
    Server(
        "kafka",
        19092,
        "4.3.1",
        "kafka.Kafka",
        _kafka,
        answers_kafka,
        Maven(("org.apache.kafka:kafka_2.13:4.3.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")),
    ),
    Server(
        "dynamodb",
        18000,
        "2.6.1",
        "LoopbackDynamoDb",
        _dynamodb,
        answers_http("/"),
        Maven(
            ("com.amazonaws:DynamoDBLocal:2.6.1",),
            (("libsqlite4java-linux-amd64-1.0.392.so", "libsqlite4java-linux-amd64.so"),),
            HERE / "LoopbackDynamoDb.java",
        ),
        shown="http://{address}",
    ),
    Server(
        "kinesalite",
        14570,
        "3.3.3",
        "kinesalite",
        _kinesalite,
        answers_http("/"),
        Npm("kinesalite@3.3.3"),
        shown="http://{address}",
    ),
    Server("pubsub", 18085, "2.0.0", "bin/pubsub", _pubsub, answers_http2, GoBuild(HERE / "pubsub")),
    Server(
        "toxiproxy",
        18474,
        "2.5.0",
        "bin/server -host",
        _toxiproxy,
        answers_http("/version", 200),
        GoInstall("github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0"),
        shown="http://{address}",
    ),
    Server(
        "versitygw",
        17070,
        "1.8.0",
        "bin/versitygw --port",
        _versitygw,
        answers_http("/", 200, 403),
        GoInstall("github.com/versity/versitygw/cmd/versitygw@v1.8.0"),
        shown="http://{address}",
    ),
    Server(
        "gcs",
        17443,
        "1.56.1",
        "bin/fake-gcs-server",
        _gcs,
        answers_http("/storage/v1/b", 200),
        GoInstall("github.com/fsouza/fake-gcs-server@v1.56.1"),
        shown="http://{address}",
    ),
    Server(
        "ministack",
        14566,
        "1.5.33",
        "ministack",
        _ministack,
        answers_http("/"),
        Venv("ministack==1.5.33"),
        shown="http://{address}",
    ),
    Server(
        "postgresql",
        15433,
        "debian",
        "postgres",
        _postgresql,
        answers_postgresql,
        first_signal=signal.SIGINT,  # "fast": does not wait for its clients
    ),
    Server(
        "unleash",
        14242,
        "8.2.0",
        "unleash-server",
        _unleash,
        answers_http("/health", 200),
        Npm("unleash-server@8.2.0"),
        after=("postgresql",),
        shown="http://{address}/api",
    ),
)

BY_NAME: Final = {server.name: server for server in SERVERS}
