"""The last steps of scoring: effects of identity checks, then of imports, then scores are written where all look."""

from typing import Any

import msgspec

from ..domain.import_effects import NOTHING_IMPORTED, with_imports
from ..domain.records import Batch, Failure
from ..domain.scores import cache_entry, latest_item, score_item, version_of
from ..domain.verification_effects import counts_itself, with_verification
from .clock import now_ms
from .ports import ArmCache, FanImports, Table
from .steps import Count, Scored, dead_message


def apply_imports(batch: Batch[Scored], imports: FanImports | None) -> Batch[Scored]:
    """Adds to each score what the active imports say of its user, all of a batch as of one generation."""
    if imports is None or not batch.items:
        return batch
    generation, values = imports.values([scored.message.global_user_id for scored in batch.items])
    if not generation and values.count(NOTHING_IMPORTED) == len(values):
        return batch  # there never was an import
    return batch.with_items(
        [
            msgspec.structs.replace(scored, imported=imported, generation=generation)
            for scored, imported in zip(batch.items, values, strict=True)
        ]
    )


def persist(
    batch: Batch[Scored], table: Table, cache: ArmCache | None, imports: FanImports | None, worker: str, count: Count
) -> Batch[Scored]:
    """Writes score items, then each user's latest item and ARM cache entry where newer; counts ``scored``.

    Idempotent: a score's keys come from what caused it, and a late score never replaces a newer one. A score the table
    will never take becomes a dead letter.

    Once all is written it looks whether other imports became active meanwhile, and if so writes the scores under those.
    Whoever activates an import moves the pointer first and reads the latest items then. So either they find these
    scores, or this finds their pointer: none stays under imports that are no longer active.
    """
    written = _write(batch, table, cache, worker)
    while imports is not None and batch.items and imports.generation() > batch.items[0].generation:
        batch = apply_imports(batch, imports)
        written = _write(batch, table, cache, worker)
    count("scored", len(written.items))
    return written


def _write(batch: Batch[Scored], table: Table, cache: ArmCache | None, worker: str) -> Batch[Scored]:
    now = now_ms()
    items = [_item(scored, worker, now) for scored in batch.items]
    written = table.batch_put(items)
    # Of one user's scores in a batch only the newest can end up as the latest.
    newest: dict[str, tuple[str, int]] = {}
    for index, scored in enumerate(batch.items):
        user = scored.message.global_user_id
        version = version_of(scored.message, scored.generation, scored.results)
        if written[index] is None and (user not in newest or version > newest[user][0]):
            newest[user] = (version, index)
    latest = table.put_if_newer([(version, latest_item(items[index])) for version, index in newest.values()])
    refused = {index: failure for index, failure in enumerate(written) if failure is not None}
    for (_, index), outcome in zip(newest.values(), latest, strict=True):
        if isinstance(outcome, Failure):
            refused[index] = outcome
    if cache is not None:
        entries = [
            cache_entry(items[index], version, batch.items[index].message.occurred_at)
            for version, index in newest.values()
            if index not in refused
        ]
        cache.put_if_newer([(entry.key, entry.version, entry.value) for entry in entries])
    failed = [
        dead_message(batch, batch.items[index].received, worker, failure, batch.items[index].message)
        for index, failure in sorted(refused.items())
    ]
    return batch.with_items([scored for index, scored in enumerate(batch.items) if index not in refused], failed)


def _item(scored: Scored, worker: str, written_at_ms: int) -> dict[str, Any]:
    item = score_item(scored.message, scored.score, worker, written_at_ms)
    if scored.verification is not None and not counts_itself(scored.score):
        item = with_verification(item, scored.verification, scored.message.occurred_at)
    if scored.results:
        item["verificationResults"] = scored.results  # whoever writes it again needs it for the version
    return item if scored.imported is NOTHING_IMPORTED else with_imports(item, scored.imported)
