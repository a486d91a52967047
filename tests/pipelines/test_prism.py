"""Jobs on Prism have no time limit."""

from apache_beam.portability.api import beam_job_api_pb2

from fan_identity.pipelines.prism import DetachedPrismRunner
from fan_identity.pipelines.runner import parse_beam_flags


class JobService:
    """Notes the time limits of a job's requests."""

    def __init__(self):
        self.limits = {}

    def GetStateStream(self, request, timeout=None):
        self.limits["state"] = timeout
        return iter([beam_job_api_pb2.JobStateEvent()])

    def GetMessageStream(self, request, timeout=None):
        self.limits["messages"] = timeout
        return iter([])

    def Run(self, request, timeout=None):
        self.limits["run"] = timeout
        return beam_job_api_pb2.RunJobResponse(job_id="job")


def test_a_job_is_watched_without_a_time_limit():
    """Beam gives these streams the limit of a request, at whose end it takes the job for failed and stops Prism."""
    flags = ["--runner=PrismRunner", "--prism_location=/prism", "--job_server_timeout=1"]
    service = JobService()
    handle = DetachedPrismRunner().create_job_service_handle(service, parse_beam_flags(flags, prism=None))
    handle.run("job")
    assert service.limits == {"state": None, "messages": None, "run": None}
