"""Cutting a sequence into requests a service takes: at most so many items, at most so many bytes."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batches(items: Iterable[Item], size_of: Callable[[Item], int], most: int, most_bytes: int) -> Iterator[list[Item]]:
    """Cuts items into batches, in their order, each as full as both limits allow.

    Takes from ``items`` no more than one item beyond the batch it yields.

    Args:
        items: what to cut.
        size_of: an item's bytes as the service counts them.
        most: items in a batch, at least 1.
        most_bytes: bytes in a batch. An item that is larger by itself stands alone: whoever may not send it finds it
            before.

    Yields:
        Batches that are not empty.
    """
    batch: list[Item] = []
    total = 0
    for item in items:
        size = size_of(item)
        if batch and (len(batch) >= most or total + size > most_bytes):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch
