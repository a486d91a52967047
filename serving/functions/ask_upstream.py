"""Functions that ask one service for one object: campaigns, phone scores, eligibility, event details, LNAA."""

from collections.abc import Callable, Mapping
from typing import Any

from ..context import Context, not_configured
from ..data_sources import DataSources, Lookup
from ..pipeline import Function


def ask_upstream(
    name: str,
    source: str,
    setting: str,
    lookup: Callable[[DataSources], Lookup | None],
    parameters: Callable[[Context], Mapping[str, str]],
) -> Function:
    """A function that asks a service.

    Args:
        name: the function's name.
        source: the data source, by the reference's name.
        setting: where its address is set, for the error where it is not.
        lookup: finds the client.
        parameters: what is asked for.
    """

    async def request(ctx: Context) -> Any:
        client = lookup(ctx.sources)
        if client is None:
            raise not_configured(name, setting)
        return await client.fetch(parameters(ctx))

    def response(ctx: Context) -> Any:
        ctx.raise_error()
        return ctx.result

    return Function(name, source, request, response)


def _own_id(ctx: Context) -> str:
    """The fan asked about: a signed-in fan themselves, or whom a service names."""
    return ctx.args.get("globalUserId") or ctx.identity.subject


PROXY_CAMPAIGN = ask_upstream(
    "getCampaign",
    "proxy_campaign_service",
    "campaigns",
    lambda sources: sources.campaigns,
    lambda ctx: {"campaignId": ctx.args["campaignId"]},
)
GET_UPDATED_PHONESCORE = ask_upstream(
    "getUpdatedPhonescore",
    "get_updated_phonescore",
    "phone_scores",
    lambda sources: sources.phone_scores,
    lambda ctx: {"globalUserId": _own_id(ctx), "phoneNumber": ctx.args["phoneNumber"]},
)
CHECK_ELIGIBILITY = ask_upstream(
    "checkEligibility",
    "check_eligibility",
    "eligibility",
    lambda sources: sources.eligibility,
    lambda ctx: {"globalUserId": _own_id(ctx), "eventId": ctx.args["eventId"]},
)
EVENT_DETAILS = ask_upstream(
    "eventDetails",
    "event_details",
    "event_details",
    lambda sources: sources.event_details,
    lambda ctx: {"eventId": ctx.args["eventId"]},
)
LNAA_ARTIST = ask_upstream(
    "getArtist", "lnaa_api", "lnaa", lambda sources: sources.lnaa, lambda ctx: {"artistId": ctx.args["artistId"]}
)
