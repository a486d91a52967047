"""The rescore step: a request becomes scores of everyone it names, a page of users at a time."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from ..domain.activity import MalformedRecordError
from ..domain.envelopes import opened
from ..domain.records import Batch, DeadLetter, Failure, Returned
from ..domain.rescoring import (
    RescoreRequest,
    decode_rescore_request,
    request_for,
    rescore_message,
    rescore_time_ms,
    selects,
)
from .backends import Backends
from .clock import now_ms
from .fan_verifications import FanVerifications, add_verifications
from .kill_switch import KillSwitch
from .pacing import Pacer
from .persisting import apply_imports, persist
from .ports import AraiSource, ArmCache, FanImports, ReceivedMessage, ScoringModel, Table
from .steps import (
    MAX_RECEIVES,
    Count,
    Queued,
    dead_message,
    fetch_arai,
    retry_delay_ms,
    score_users,
    traced,
)

_PAGE: Final = 500


class Rescoring:
    """Scores again whom requests name, with the clients given.

    Everything it writes is idempotent: a request received again writes the same items.

    Args:
        worker: in scores and dead letters.
        table: where scores go, and where users are found by cluster or model version.
        cache: the ARM cache, or None.
        arai: the users' profiles.
        model: scores them.
        imports: what the active imports say of them, or None to apply none.
        verifications: what identity checks say of them, or None to ask for none.
        pacer: how many users a second are scored, live traffic's room to breathe; None for as many as can be.
        switch: a request is paused in its midst where the worker is switched off; None to end what is begun.
    """

    def __init__(
        self,
        worker: str,
        table: Table,
        cache: ArmCache | None,
        arai: AraiSource,
        model: ScoringModel,
        imports: FanImports | None,
        verifications: FanVerifications | None = None,
        pacer: Pacer | None = None,
        switch: KillSwitch | None = None,
    ) -> None:
        self._worker = worker
        self._table = table
        self._cache = cache
        self._arai = arai
        self._model = model
        self._imports = imports
        self._verifications = verifications
        self._pacer = pacer
        self._switch = switch

    @classmethod
    def of(
        cls, worker: str, backends: Backends, pacer: Pacer | None = None, switch: KillSwitch | None = None
    ) -> "Rescoring":
        """With the clients of backends.

        Raises:
            UsageError: an address cannot be used.
        """
        return cls(
            worker,
            backends.open_table(),
            backends.open_cache(),
            backends.open_arai(),
            backends.open_model(),
            backends.open_imports(),
            backends.open_verifications(),
            pacer,
            switch,
        )

    def rescore(self, batch: Batch[ReceivedMessage], count: Count) -> Batch[ReceivedMessage]:
        """Works off requests; counts ``scored`` users and ``requests`` done.

        A user who cannot be scored becomes a dead letter that holds the request for this user alone. Where nobody of a
        page can be scored for now, the whole request goes back to the queue.
        """
        for received in batch.items:
            try:
                request = decode_rescore_request(opened(received.body).body)
            except MalformedRecordError as error:
                letter = dead_message(batch, received, self._worker, Failure("malformed", str(error)), None)
                batch = batch.with_items(batch.items, [letter])
                continue
            failed, outage = self._rescore_one(batch, received, request, count)
            if outage is None:
                count("requests", 1)
                batch = batch.with_items(batch.items, failed)
            elif received.receipt and received.receive_count < MAX_RECEIVES:
                back = Returned(received.receipt, retry_delay_ms(received.receive_count))
                batch = batch.with_items(batch.items, failed, [back])
            else:
                letter = dead_message(batch, received, self._worker, outage, None)
                batch = batch.with_items(batch.items, [*failed, letter])
        return batch

    def _rescore_one(
        self, batch: Batch[ReceivedMessage], received: ReceivedMessage, request: RescoreRequest, count: Count
    ) -> tuple[list[DeadLetter], Failure | None]:
        time_ms = rescore_time_ms(request, received.sent_at_ms or now_ms())
        letters: list[DeadLetter] = []
        users = self._users(request)
        while page := list(islice(users, self.page)):
            failed, outage = self.rescore_page(batch, received, request, page, time_ms, count)
            if outage is not None:
                return letters, outage
            letters += failed
        return letters, None

    @property
    def page(self) -> int:
        """How many users are scored together: fewer at a low rate, so that the work is spread and not in gusts."""
        return _PAGE if self._pacer is None else self._pacer.portion(_PAGE)

    def rescore_page(
        self,
        batch: Batch[Any],
        received: ReceivedMessage,
        request: RescoreRequest,
        users: Sequence[str],
        time_ms: int,
        count: Count,
    ) -> tuple[list[DeadLetter], Failure | None]:
        """Scores users of a request, when the rate allows it; counts ``scored``.

        Args:
            batch: names the run in scores and dead letters.
            received: how the request came.
            request: names the scores.
            users: of the request, each once.
            time_ms: of the scores.
            count: adds to a counter.

        Returns:
            The dead letters of those who cannot be scored; and where that is everybody, for now, why.
        """
        if self._switch is not None and not self._switch.wait():
            return [], Failure("switched_off", "the worker is switched off by its flag", retryable=True)
        if self._pacer is not None:
            self._pacer.take(len(users))
        queued = [
            Queued(
                # Its own group and no receipt: one user's failure holds up nobody else's score.
                msgspec.structs.replace(received, receipt="", group_id=user, body=request_for(request, user, time_ms)),
                traced(rescore_message(request, user, time_ms, batch.request_id), received.trace),
            )
            for user in users
        ]
        work = Batch(batch.request_id, batch.source, queued)
        profiled = add_verifications(fetch_arai(work, self._arai, self._worker), self._verifications)
        scored = score_users(profiled, self._model, self._worker)
        applied = apply_imports(scored, self._imports)
        written = persist(applied, self._table, self._cache, self._imports, self._worker, count)
        unavailable = [letter for letter in written.dead_letters if letter.reason.endswith("_unavailable")]
        if len(unavailable) == len(users):
            return list(written.dead_letters), Failure(unavailable[0].reason, unavailable[0].error, retryable=True)
        return list(written.dead_letters), None

    def _users(self, request: RescoreRequest) -> Iterator[str]:
        if request.users is not None:
            yield from dict.fromkeys(request.users)
            return
        for item in self._table.latest_items():
            if selects(request, item):
                yield str(item["globalUserId"])
