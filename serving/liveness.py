"""The parts around the workers and the API together, to be probed: those of ``io.probes`` and what the API asks."""

from ..io.addresses import parse_address
from ..io.errors import UsageError
from ..io.probe_calls import Question
from ..io.probe_http import ask_http, ask_key_set
from ..io.probes import Part, named_parts
from .settings import ServingSettings
from .tokens.rules import TokenRules

TABLES = ("account_fanscore_table", "demand_table", "outbox")
UPSTREAMS = ("account_info", "campaigns", "phone_scores", "eligibility", "event_details", "lnaa", "identity_checks")


def all_parts(settings: ServingSettings) -> list[Part]:
    """Every part the settings name.

    Raises:
        UsageError: an address is wrong, or there is none at all; names the setting.
    """
    found = named_parts_of(settings)
    if not found:
        raise UsageError(
            "no part has an address: give --store sqlite:///file.db, or the settings the workers run with "
            "(FAN_IDENTITY_TABLE, FAN_IDENTITY_QUEUE and so on)"
        )
    return found


def named_parts_of(settings: ServingSettings) -> list[Part]:
    """``all_parts``, where there may be none."""
    found = named_parts(settings)
    for setting in (*TABLES, "events"):
        found.add(setting, getattr(settings, setting))
    for setting in UPSTREAMS:
        text: str | None = getattr(settings, setting)
        if text is not None:
            found.add(setting, text, _ask_upstream(text, setting))
    if settings.token_issuer is not None:
        keys = TokenRules.of(settings).jwks
        found.add("token_jwks", keys, ask_key_set(keys, "token-jwks"))
    return found.parts


def _ask_upstream(text: str, setting: str) -> Question:
    """An HTTP service, or Rekognition, of which only a connection is made: any of its calls begins a session."""
    address = parse_address(text, setting)
    if address.scheme != "rekognition":
        return ask_http(text, setting, setting)
    endpoint = address.options.get("endpoint", f"https://rekognition.{address.target}.amazonaws.com")
    return ask_http(endpoint, setting, "rekognition")
