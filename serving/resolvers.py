"""Which field runs which functions, and who may ask for it. Read it as the reference's ``resolvers.tf``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..domain.access import Identity
from ..domain.demand import is_event_id
from .context import FunctionError, Request
from .functions.ask_upstream import (
    CHECK_ELIGIBILITY,
    EVENT_DETAILS,
    GET_UPDATED_PHONESCORE,
    LNAA_ARTIST,
    PROXY_CAMPAIGN,
)
from .functions.calc_account_score import CALC_ACCOUNT_SCORE
from .functions.check_liveness import CHECK_LIVENESS
from .functions.describe_demand import DESCRIBE_DEMAND
from .functions.get_account_fanscore_global_user_id import GET_ACCOUNT_FANSCORE_GLOBAL_USER_ID
from .functions.get_account_fanscore_member_id import GET_ACCOUNT_FANSCORE_MEMBER_ID
from .functions.get_arm_score import GET_ARM_SCORE, LOOK_UP_ARM_SCORE
from .functions.get_bot_or_not import GET_BOT_OR_NOT
from .functions.get_bot_or_not_cursor import GET_BOT_OR_NOT_CURSOR
from .functions.get_demand_event_record import GET_DEMAND_EVENT_RECORD
from .functions.get_demand_sale_record import GET_DEMAND_SALE_RECORD
from .functions.get_disco_event_id import GET_DISCO_EVENT_ID
from .functions.get_event_demand_record import GET_EVENT_DEMAND_RECORD
from .functions.get_fan_history import GET_FAN_HISTORY
from .functions.save_demand_record import SAVE_DEMAND_RECORD
from .functions.tm_account_info import TM_ACCOUNT_INFO
from .functions.upsert_user import UPSERT_USER
from .pipeline import Pipeline
from .shared import require_known, require_reader_of

Args = Mapping[str, Any]
Check = Callable[[Identity, Args], None]
"""Raises FunctionError where this caller may not ask for these arguments."""


def signed_in_fan(identity: Identity, args: Args) -> None:
    """Login required: a fan, who acts for themselves."""
    del args
    if identity.user_id is None:
        raise FunctionError("User not logged in", "401", "NOT_LOGGED_IN")


def owner_or_service(identity: Identity, args: Args) -> None:
    """Owner only: the fan named, or a service that may read any fan."""
    require_reader_of(identity, args["globalUserId"])


def owner(identity: Identity, args: Args) -> None:
    """Owner only, no service either: what is started is the fan's own act."""
    signed_in_fan(identity, args)
    require_reader_of(identity, args["globalUserId"])


def oneself_or_service(identity: Identity, args: Args) -> None:
    """The signed-in fan where no other is named; a service names whom it asks about."""
    require_known(identity)
    named = args.get("globalUserId")
    if named is not None:
        require_reader_of(identity, named)
    elif identity.user_id is None:
        raise FunctionError("a service names the fan: globalUserId", "400", "BAD_INPUT")


def anyone_known(identity: Identity, args: Args) -> None:
    """Public: any signed-in fan, service or API key."""
    del args
    require_known(identity)


@dataclass(frozen=True)
class Resolver:
    """A field: who may ask, and what answers.

    Attributes:
        check: raises where the caller may not.
        pipeline: answers.
        result: picks the field's value out of the pipeline's result.
    """

    check: Check
    pipeline: Pipeline
    result: Callable[[Any], Any] = lambda value: value

    async def answer(self, args: Args, request: Request) -> Any:
        """The field's value.

        Raises:
            FunctionError: the caller may not, the arguments do not fit, or a data source is away that it needs.
        """
        self.check(request.identity, args)
        check_ids(args)
        return self.result(await self.pipeline.run(args, request))


def check_ids(args: Args) -> None:
    """Refuses ids that can name nothing; any characters are data.

    Raises:
        FunctionError: 400, naming the argument.
    """
    given: dict[str, Any] = {**args, **(args.get("input") or {})}
    for name in ("eventId", "saleId", "memberId", "campaignId", "artistId", "phoneNumber"):
        value = given.get(name)
        if value is not None and not (isinstance(value, str) and is_event_id(value)):
            raise FunctionError(f"{name} is blank or too long", "400", "BAD_INPUT")


ACCOUNT_FANSCORE: Final = Pipeline(
    (
        GET_ACCOUNT_FANSCORE_GLOBAL_USER_ID,
        GET_ACCOUNT_FANSCORE_MEMBER_ID,
        GET_ARM_SCORE,
        GET_DISCO_EVENT_ID,
        GET_EVENT_DEMAND_RECORD,
        GET_BOT_OR_NOT_CURSOR,
        GET_BOT_OR_NOT,
        CALC_ACCOUNT_SCORE,
    )
)
DEMAND_RECORD_SAVE: Final = Pipeline(
    (TM_ACCOUNT_INFO, GET_DEMAND_SALE_RECORD, GET_DEMAND_EVENT_RECORD, SAVE_DEMAND_RECORD)
)
CHECK_LIVENESS_OF_FAN: Final = Pipeline((GET_ACCOUNT_FANSCORE_GLOBAL_USER_ID, GET_ARM_SCORE, CHECK_LIVENESS))

RESOLVERS: Final[Mapping[str, Resolver]] = {
    "VFApi.accountFanscore": Resolver(owner_or_service, ACCOUNT_FANSCORE),
    "VFApi.campaign": Resolver(anyone_known, Pipeline((PROXY_CAMPAIGN,))),
    "VFApi.accountInfo": Resolver(
        signed_in_fan,
        Pipeline((TM_ACCOUNT_INFO,)),
        lambda info: {
            "globalUserId": info["global_user_id"],
            "memberId": info["member_id"],
            "email": info["email"],
        },
    ),
    "VFApi.phoneScore": Resolver(oneself_or_service, Pipeline((GET_UPDATED_PHONESCORE,))),
    "VFApi.eligibility": Resolver(oneself_or_service, Pipeline((CHECK_ELIGIBILITY,))),
    "VFApi.artist": Resolver(anyone_known, Pipeline((LNAA_ARTIST,))),
    "Mutation.demandRecordSave": Resolver(signed_in_fan, DEMAND_RECORD_SAVE),
    "Mutation.upsertEntry": Resolver(signed_in_fan, Pipeline((UPSERT_USER,))),
    "Mutation.checkLiveness": Resolver(owner, CHECK_LIVENESS_OF_FAN),
    "Query.getArmScore": Resolver(
        owner_or_service, Pipeline((LOOK_UP_ARM_SCORE,)), lambda arm: None if arm is None else arm["score"]
    ),
    "Fan.armScore": Resolver(owner_or_service, Pipeline((LOOK_UP_ARM_SCORE,))),
    "Fan.history": Resolver(owner_or_service, Pipeline((GET_FAN_HISTORY,))),
    "Fan.accountFanscore": Resolver(owner_or_service, ACCOUNT_FANSCORE),
    "Query.demand": Resolver(anyone_known, Pipeline((GET_DISCO_EVENT_ID, GET_EVENT_DEMAND_RECORD, DESCRIBE_DEMAND))),
    "Demand.eventDetails": Resolver(anyone_known, Pipeline((EVENT_DETAILS,))),
}
"""By type and field, as AppSync names them."""

PARENT_ARGS: Final[Mapping[str, tuple[str, ...]]] = {"Fan": ("globalUserId",), "Demand": ("eventId",)}
"""What a type's fields take from their parent, AppSync's ``$context.source``, besides their arguments."""
