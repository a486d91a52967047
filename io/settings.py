"""The settings of every command: environment variables ``FAN_IDENTITY_…`` first, then the command's flags.

Secrets belong in the environment and are read where they are used; none is printed or put into a pipeline.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ..domain.imports import Thresholds
from .durations import duration
from .errors import UsageError


class Settings(BaseSettings):
    """What a run needs to know.

    Attributes:
        app_name: the worker to run where no name is given (read from ``APP_NAME``, as the Lambda reference has it).
        store: one address for queues, tables, cache, dead letters, positions and profiles together.
        queue: accountActivityQueue's address; the store where None. Likewise ``table``, ``cache``, ``dead_letters``,
            ``arai`` (a table's address: where ARAI items are; ``table`` where None) and ``positions``.
        on_demand_queue: onDemandScoringQueue's address. Likewise ``rescore_queue`` and ``identity_queue``.
        staging_queue: stagingScoreUsers' queue: where set, everything enqueued is sent there too.
        staging_table: stagingScoreUsers' table; ``staging_model`` its model.
        verification_table: the table of identity verifications: handleEvent writes it, scores look there too.
        source: what an enqueue worker reads, or scoreUsers for ARAI changes.
        model: the model's address; the model that comes with the package where None.
        accounts: the Accounts API's address, asked for ARAI that is missing or old; None to ask nobody.
        arai_max_age: ARAI older than this is fetched anew.
        identity: the Identity Service's address, told of verifications; None to tell nobody.
        flags: the Unleash server: ``unleash+https://host/api``; None for everything on.
        flags_folder: where the last known flags are kept, so that they survive a restart while the server is away.
        flags_default: whether workers run while the flag server was never reached.
        operations: the table of what runs: workers' reports, the audit log, outages told; the store, else
            ``table``, where None.
        probe_deadline: what checkLiveness and ``doctor`` wait for a part at most.
        metrics_port: where this process answers Prometheus, on 127.0.0.1 (``/metrics``); 0 for a free one, None for no
            such door. Where it is taken, as by the process beside, the next free one.
        metrics_host: the address it listens on.
        horizon: activities older than this before ``now`` are rejected, written as ``7d``; None for no limit in bounded
            runs.
        internal_accounts: user ids that are never scored.
        batch_size: how many records one Beam element carries.
        rescore_rate: users a second that processRescoreEvents scores in each process, so that live traffic keeps its
            latency.
        splits: how many readers share a source side by side; the runner's parallelism at most.
        visibility_timeout: how long a received message is hidden from others.
        prism: path of the Prism binary; searched in PATH where None.
        cluster_prefix: how keys of cluster files begin, so that an S3 event tells what to import; "" to look at their
            columns instead. Likewise ``bot_or_not_prefix``.
        work: where imports make the folder of their intermediate files; this machine's folder for temporary files where
            None. On a cluster ``s3://bucket/folder`` or ``gs://…``.
        max_bad: an import is refused where a greater share of its rows is bad. Likewise ``max_unknown`` (fans never
            scored), ``max_removed`` (fans who lose their value), ``max_arm_changes`` (scored fans whose ARM changes).
        s3_options: options of the addresses made from S3 events: ``region=eu-west-1``, ``endpoint=http://host:port``.
        log_level: of this program's own log.
    """

    model_config = SettingsConfigDict(env_prefix="FAN_IDENTITY_", extra="forbid", frozen=True)

    app_name: str | None = Field(default=None, validation_alias="APP_NAME")
    store: str | None = None
    queue: str | None = None
    on_demand_queue: str | None = None
    staging_queue: str | None = None
    rescore_queue: str | None = None
    identity_queue: str | None = None
    table: str | None = None
    staging_table: str | None = None
    verification_table: str | None = None
    cache: str | None = None
    dead_letters: str | None = None
    arai: str | None = None
    arai_max_age: timedelta = Field(default=timedelta(days=1), gt=timedelta(0))
    positions: str | None = None
    source: str | None = None
    model: str | None = None
    staging_model: str | None = None
    accounts: str | None = None
    identity: str | None = None
    flags: str | None = None
    flags_default: bool = True
    flags_folder: str | None = None
    operations: str | None = None
    probe_deadline: timedelta = Field(default=timedelta(seconds=3), gt=timedelta(0))
    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    metrics_host: str = "127.0.0.1"
    horizon: timedelta | None = None
    internal_accounts: Annotated[frozenset[str], NoDecode] = frozenset()
    batch_size: int = Field(default=500, ge=1, le=10_000)
    rescore_rate: int = Field(default=200, ge=1)
    splits: int = Field(default=1, ge=1, le=256)
    visibility_timeout: timedelta = Field(default=timedelta(seconds=60), gt=timedelta(0))
    prism: str | None = None
    cluster_prefix: str = "clusters/"
    bot_or_not_prefix: str = "bot-or-not/"
    s3_options: str = ""
    work: str | None = None
    max_bad: float = Field(default=Thresholds().bad, ge=0, le=1)
    max_unknown: float = Field(default=Thresholds().unknown, ge=0, le=1)
    max_removed: float = Field(default=Thresholds().removed, ge=0, le=1)
    max_arm_changes: float = Field(default=Thresholds().arm_changes, ge=0, le=1)
    log_level: str = Field(default="WARNING", pattern="(?i)^(debug|info|warning|error)$")

    @field_validator("horizon", "visibility_timeout", "arai_max_age", "probe_deadline", mode="before")
    @classmethod
    def _parse_durations(cls, value: object) -> object:
        """Durations are written 7d, 12h, 30m, 45s or 500ms."""
        return duration(value) if isinstance(value, str) else value

    @field_validator("internal_accounts", mode="before")
    @classmethod
    def _split_accounts(cls, value: object) -> object:
        """An environment variable lists accounts separated by commas."""
        if isinstance(value, str):
            return frozenset(part.strip() for part in value.split(",") if part.strip())
        return value


def load_settings(**flags: Any) -> Settings:
    """Reads the environment; a flag that is not None overrides it.

    Raises:
        UsageError: naming each setting that does not fit and what was expected.
    """
    return load(Settings, flags)


SomeSettings = TypeVar("SomeSettings", bound=Settings)


def load(kind: type[SomeSettings], flags: Mapping[str, Any]) -> SomeSettings:
    """``load_settings`` for settings that go further. Raises the same."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as error:
        # The value is not repeated: it may be a secret or a user id.
        problems = "; ".join(
            f"setting {'.'.join(str(part) for part in problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors()
        )
        raise UsageError(f"{problems} (a flag, or FAN_IDENTITY_<SETTING> in the environment)") from None
