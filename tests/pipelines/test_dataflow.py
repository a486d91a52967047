"""What would be sent to Dataflow, written to files instead: the job, the pipeline's proto, the staged package.

No network: ``--template_location`` writes the job, and what asks Google for credentials is replaced. Needs Beam's
``gcp`` extra, as submitting to Dataflow does.
"""

import base64
import binascii
import bz2
import json
import re
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.portability.api import beam_runner_api_pb2

from fan_identity.io.backends import Backends
from fan_identity.io.errors import UsageError
from fan_identity.io.registry import worker_named
from fan_identity.io.settings import load_settings
from fan_identity.pipelines import workers
from fan_identity.pipelines.runner import execute, pace_of, parse_beam_flags, runs_here

pytest.importorskip("apache_beam.runners.dataflow.internal.apiclient", reason="needs apache-beam[gcp]")

ROOT = Path(__file__).parents[2]
SECRETS = {
    name: f"sekret-{number}-{name.lower()}"
    for number, name in enumerate(
        (
            "FAN_IDENTITY_KAFKA_USERNAME",
            "FAN_IDENTITY_KAFKA_PASSWORD",
            "FAN_IDENTITY_KAFKA_OAUTH_CLIENT_SECRET",
            "FAN_IDENTITY_KAFKA_SSL_KEY_PASSWORD",
            "FAN_IDENTITY_REDIS_PASSWORD",
            "FAN_IDENTITY_UNLEASH_TOKEN",
            "FAN_IDENTITY_ACCOUNTS_TOKEN",
            "FAN_IDENTITY_IDENTITY_TOKEN",
            "FAN_IDENTITY_MODEL_TOKEN",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
        )
    )
}
PLACES = {
    "queue": "sqs://marked-queue.fifo?region=eu-west-1",
    "table": "dynamodb://marked-table?region=eu-west-1",
    "dead_letters": "dynamodb://marked-letters?region=eu-west-1",
    "cache": "rediss://marked-cache:6379/0",
    "accounts": "https://marked-accounts/v1",
    "model": "https://marked-model/score",
    "flags": "unleash+https://marked-flags/api",
}
WORKERS = {
    "enqueueFromStream": {"source": "kafka://marked-broker:9092/activities"},
    "scoreUsers": {},
    "enqueueFromPurchaseStream": {"source": "pubsub://marked-project/purchases-subscription"},
}
STEPS = {
    "enqueueFromStream": ("Read activities", "Filter scorable", "Enqueue activities", "Write dead letters", "Finish"),
    "scoreUsers": ("Receive messages", "Score users", "Apply imports", "Persist scores", "Acknowledge messages"),
    "enqueueFromPurchaseStream": ("Read activities/Receive", "Enqueue activities", "Finish"),
}


class Submitted:
    """What a submission wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = json.loads((folder / "job.json").read_text())
        self.proto = (folder / "staging" / "pipeline.pb").read_bytes()
        self.pipeline = beam_runner_api_pb2.Pipeline.FromString(self.proto)

    def everything(self) -> dict[str, bytes]:
        """Each file's bytes, and what is packed in them, unpacked: Beam compresses what it pickles."""
        found = {}
        for path in self.folder.rglob("*"):
            if path.is_file() and path.suffix != ".gz":
                data = path.read_bytes()
                found[path.name] = b"\n".join([data, *unpacked(data)])
        return found


def unpacked(data: bytes) -> list[bytes]:
    parts = []
    for text in re.findall(rb"[A-Za-z0-9+/]{24,}={0,2}", data):
        try:
            packed = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
        for unpack in (bz2.decompress, zlib.decompress):
            try:
                parts.append(unpack(packed))
            except (OSError, ValueError, zlib.error):
                continue
    return parts


def flags(folder: Path, *more: str) -> list[str]:
    for name in ("staging", "temp"):
        (folder / name).mkdir()
    return [
        "--runner=DataflowRunner",
        "--project=marked-project",
        "--region=europe-west1",
        f"--temp_location={folder / 'temp'}",
        f"--staging_location={folder / 'staging'}",
        f"--template_location={folder / 'job.json'}",
        "--sdk_location=container",
        "--no_auth",
        *more,
    ]


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(GoogleCloudOptions, "validate", lambda self, validator: [])
    monkeypatch.setattr("apache_beam.internal.gcp.auth.get_service_credentials", lambda options: None)
    monkeypatch.setattr("apache_beam.runners.dataflow.internal.apiclient.get_service_credentials", lambda options: None)
    monkeypatch.setattr(workers, "check", lambda worker, backends: None)  # which connects
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def submit(offline, tmp_path):
    def submitted(name: str, *more: str) -> Submitted:
        settings = load_settings(**PLACES, **WORKERS[name])
        backends = Backends.of(settings, name, settings.source)
        job = f"fan-identity-{name.lower()}"
        options = parse_beam_flags(flags(tmp_path, *more), prism=None, streaming=True, job=job)
        assert not runs_here(options)
        build = workers.plan(worker_named(name), settings, backends, None, pace_of(options))
        assert execute(build, options) == {}, "a template is written, nothing runs"
        return Submitted(tmp_path)

    return submitted


@pytest.mark.parametrize("name", WORKERS)
def test_the_job_streams_and_holds_the_steps_and_no_secret(submit, name):
    submitted = submit(name)
    job = submitted.job
    assert job["name"] == f"fan-identity-{name.lower()}"
    assert job["type"] == "JOB_TYPE_STREAMING"
    options = job["environment"]["sdkPipelineOptions"]["options"]
    assert options["streaming"] is True
    assert (options["project"], options["region"]) == ("marked-project", "europe-west1")
    assert "enable_streaming_engine" in job["environment"]["experiments"]
    (pool,) = job["environment"]["workerPools"]
    assert ":2." in pool["workerHarnessContainerImage"]

    labels = {transform.unique_name for transform in submitted.pipeline.components.transforms.values()}
    for step in STEPS[name]:
        assert any(label.startswith(step) for label in labels), (step, labels)
    assert not any("GroupByKey" in label for label in labels), "from the source to the last effect without a shuffle"

    everything = submitted.everything()
    proto = everything["pipeline.pb"]
    assert b"marked-letters" in proto, "the search does look into what is pickled"
    assert b"marked-letters" not in submitted.proto
    for variable, secret in SECRETS.items():
        for file, data in everything.items():
            assert secret.encode() not in data, f"{variable} in {file}"


def test_the_staged_package_holds_all_that_workers_import(submit, tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [name for name in listed.decode().split("\0") if (ROOT / name).is_file() and name]
    for name in files:  # a copy: the checkout may be built from at the same time
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    submitted = submit("enqueueFromStream", f"--setup_file={source / 'setup.py'}")
    (pool,) = submitted.job["environment"]["workerPools"]
    assert "workflow.tar.gz" in {package["name"] for package in pool["packages"]}
    (environment,) = submitted.pipeline.components.environments.values()
    assert any(b"workflow.tar.gz" in artifact.role_payload for artifact in environment.dependencies)

    with tarfile.open(submitted.folder / "staging" / "workflow.tar.gz") as archive:
        staged = {member.name.partition("/")[2]: member for member in archive.getmembers() if member.isfile()}
        for secret in SECRETS.values():
            for member in staged.values():
                content = archive.extractfile(member)
                assert content is not None and secret.encode() not in content.read()
    folders = ("domain/", "io/", "transforms/", "pipelines/", "batch/", "serving/")
    wanted = {name for name in files if name.endswith(".py") and (name.startswith(folders) or name == "__init__.py")}
    wanted |= {"setup.py", "pyproject.toml", "py.typed", "io/scorecard.json", "batch/report.html.j2"}
    assert wanted - set(staged) == set()
    assert not [name for name in staged if name.startswith(("docs/", ".services/", ".venv/"))]


def test_a_flag_dataflow_does_not_know_is_refused(tmp_path):
    with pytest.raises(UsageError, match="Beam has no option --max_num_worker_s"):
        parse_beam_flags(flags(tmp_path, "--max_num_worker_s=3"), prism=None, streaming=True)
