"""The worker ``checkLiveness`` as a Lambda: ``fan_identity.serving.liveness_handler.handler``, on a schedule.

Whatever the event holds, a round of probes is made and outages are told. Parts that are down are an answer, not an
error: EventBridge would only invoke again at once, and the schedule does so soon enough.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

from ..domain.liveness import summary_of
from ..io import emf
from ..io.liveness import WORKER, LivenessCheck, Teller
from ..io.logs import configure_logging
from ..io.telemetry import start
from .invocations import invocation_id
from .liveness import all_parts
from .settings import load_serving_settings

_log: Final = logging.getLogger("fan_identity.lambda")


def handler(event: Mapping[str, Any], context: Any = None) -> dict[str, Any]:
    """Probes every part once and tells of outages.

    Args:
        event: of a schedule; not read.
        context: of Lambda, or None outside it.

    Returns:
        ``{correlation: {requestId}, data: {up, down, parts: [{part, address, up, ms, problem}], told}}``, ``told``
        being how many notices were sent; ``{skipped: true}`` where the worker's flag is off.

    Raises:
        UsageError: a setting is wrong.
    """
    del event
    request_id = invocation_id(context)
    with emf.invocation(WORKER, request_id) as counts:
        settings = load_serving_settings()
        configure_logging(settings.log_level, WORKER, request_id)
        start.start(WORKER, settings)
        parts = all_parts(settings)
        teller = Teller.of(settings, parts, _log.warning)
        probed = LivenessCheck(settings, parts).round()
        if probed is None:
            counts["skipped"] = 1
            return {"skipped": True}
        told = 0 if teller is None else teller.tell(probed)
        found = summary_of(probed)
        counts.update(parts_up=found["up"], parts_down=found["down"], told=told)
        start.flush()  # nothing runs until the next invocation
    return {"correlation": {"requestId": request_id}, "data": {**found, "told": told}}
