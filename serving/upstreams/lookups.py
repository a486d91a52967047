"""The upstreams that are looked up by parameters, by their settings."""

from collections.abc import Callable, Mapping
from typing import Final

from ..data_sources import Lookup
from .campaigns import CampaignsClient
from .eligibility import EligibilityClient
from .event_details import EventDetailsClient
from .lnaa import LnaaClient
from .phone_scores import PhoneScoresClient
from .upstream import Upstream

LOOKUPS: Final[Mapping[str, Callable[[Upstream], Lookup]]] = {
    "campaigns": CampaignsClient,
    "phone_scores": PhoneScoresClient,
    "eligibility": EligibilityClient,
    "event_details": EventDetailsClient,
    "lnaa": LnaaClient,
}
