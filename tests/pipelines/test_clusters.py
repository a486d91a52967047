"""Submitting to a cluster, up to the point where there would have to be one (tests/services/test_flink.py goes on)."""

import signal

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_job_api_pb2

from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.pipelines.clusters import (
    JobGoesOnError,
    StrictFlinkRunner,
    StrictPortableRunner,
    failure,
    going_on,
    leave_on_signal,
)
from fan_identity.pipelines.runner import execute, parse_beam_flags, runs_here

PORTABLE = (
    "--runner=PortableRunner",
    "--job_endpoint=localhost:1",
    "--environment_type=EXTERNAL",
    "--environment_config=localhost:2",
)


class JobService:
    """Knows the flags Flink's job server knows."""

    def DescribePipelineOptions(self, request, **options):
        del request, options
        described = [
            beam_job_api_pb2.PipelineOptionDescriptor(name=name)
            for name in ("max_bundle_time_mills", "checkpointing_interval")
        ]
        return beam_job_api_pb2.DescribePipelineOptionsResponse(options=described)


@pytest.mark.parametrize("strict", [StrictPortableRunner, StrictFlinkRunner])
@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (
            "--max_bundle_time_millis=50",
            "an option --max_bundle_time_millis; did you mean --max_bundle_time_mills",
        ),
        ("--checkpointing_intervall=3000", "did you mean --checkpointing_interval"),
        ("--zzz", "an option --zzz$"),
    ],
)
def test_a_flag_that_neither_beam_nor_the_job_server_knows_is_refused(strict, flag, said):
    options = parse_beam_flags([*PORTABLE, flag, "value"], prism=None)
    with pytest.raises(UsageError, match=said):
        strict().create_job_service_handle(JobService(), options)


@pytest.mark.parametrize("strict", [StrictPortableRunner, StrictFlinkRunner])
def test_flags_of_beam_and_of_the_job_server_are_taken(strict):
    flags = [*PORTABLE, "--max_bundle_time_mills=50", "--checkpointing_interval", "3000", "--parallelism=2"]
    handle = strict().create_job_service_handle(JobService(), parse_beam_flags(flags, prism=None, streaming=True))
    assert handle.get_pipeline_options()["beam:option:max_bundle_time_mills:v1"] == "50"


def test_a_job_server_that_does_not_answer_is_named():
    options = parse_beam_flags([*PORTABLE, "--job_server_timeout=1"], prism=None)
    with pytest.raises(BackendUnavailableError, match="no job server answers at localhost:1 within 1 s"):
        execute(lambda pipeline: pipeline | beam.Create([1]), options)


@pytest.mark.parametrize(
    ("flags", "here"),
    [
        ((), True),
        (("--runner=PrismRunner", "--prism_location=/prism"), True),
        (("--runner=FlinkRunner",), True),
        (("--runner=FlinkRunner", "--flink_master=[local]"), True),
        (("--runner=FlinkRunner", "--flink_master=jobmanager:8081"), False),
        (PORTABLE, False),
        ((*PORTABLE[:2], "--environment_type=LOOPBACK"), True),
        (("--runner=DataflowRunner",), False),
    ],
)
def test_what_runs_here_and_what_outlives_the_command(flags, here):
    assert runs_here(parse_beam_flags(flags, prism=None)) is here


def test_a_cluster_is_told_the_jobs_name_and_that_it_streams():
    options = parse_beam_flags(PORTABLE, prism=None, streaming=True, job="fan-identity-x").get_all_options()
    assert (options["job_name"], options["streaming"]) == ("fan-identity-x", True)
    own = parse_beam_flags([*PORTABLE, "--job_name=mine"], prism=None, job="fan-identity-x").get_all_options()
    assert (own["job_name"], own["streaming"]) == ("mine", False)


class Submitted:
    """Beam's result of a job that is waited for when the signal comes."""

    def wait_until_finish(self):
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the wait goes on")

    def job_id(self):
        return "2026-11-25_01"


def test_a_signal_leaves_the_job_and_tells_how_to_stop_it(monkeypatch):
    options = parse_beam_flags(PORTABLE, prism=None, streaming=True, job="fan-identity-x")
    monkeypatch.setattr(beam.Pipeline, "run", lambda pipeline: Submitted())
    before = signal.getsignal(signal.SIGTERM)
    with leave_on_signal(), pytest.raises(JobGoesOnError) as left:
        execute(lambda pipeline: pipeline | beam.Create([1]), options)
    assert left.value.job == "fan-identity-x"
    assert "flink stop --savepointPath FOLDER ID" in left.value.advice
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_job_on_dataflow_is_drained_by_its_id():
    options = parse_beam_flags(["--runner=DataflowRunner", "--project=p", "--region=r"], prism=None)
    left = going_on("DataflowRunner", options, Submitted())
    assert left.job == "2026-11-25_01"
    assert left.advice.endswith("gcloud dataflow jobs drain 2026-11-25_01 --project=p --region=r")


def test_a_submission_that_was_interrupted_has_no_id_yet():
    options = parse_beam_flags(["--runner=DataflowRunner"], prism=None, job="fan-identity-x")
    assert going_on("DataflowRunner", options, None).job == "fan-identity-x"


def test_a_failure_is_told_in_one_short_line():
    told = str(failure("Pipeline x failed: java.io.IOException: no space\n\tat a.B.c(B.java:1)\n\tat d\n\tat e"))
    assert told == "the job did not end well: Pipeline x failed: java.io.IOException: no space at a.B.c(B.java:1)"
    assert "does not say why" in str(failure(""))
