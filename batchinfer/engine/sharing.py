"""Sequence packing: several short examples share one row, so that little of a batch is padding.

Pure arithmetic on lengths, like `buckets`; a function of the lengths and the bucket set alone (promise P3).
Knows nothing of arrays or devices; imports no jax.
"""

from __future__ import annotations

from collections.abc import Sequence

from batchinfer.engine.buckets import TOKENS_PER_SLOT, BucketSet

Row = tuple[int, ...]
"""The examples (indices into the window) in one row, in the order in which they stand there."""


def alone(count: int) -> list[Row]:
    """Every example in a row of its own."""
    return [(index,) for index in range(count)]


def share_rows(lengths: Sequence[int], buckets: BucketSet) -> list[Row]:
    """Every example in exactly one row; a row's examples fit its bucket, in tokens and in slots.

    Best fit decreasing (Johnson 1974): the longest example first, each into the row with the least room that still
    holds it, else into a new row of the smallest bucket it fits. Open rows are kept by the room they have left, and a
    bit mask tells which rooms there are, so an example finds its row in a few steps. O(examples).
    """
    rows: list[list[int]] = []
    slots: list[int] = []
    open_rows: dict[int, list[int]] = {}
    rooms = 0  # bit r is set where open_rows[r] is not empty
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms &= ~(1 << room)
        else:
            row, room = len(rows), buckets.holding(length).length
            rows.append([])
            slots.append(buckets.slots(room))
        rows[row].append(index)
        if room > length and len(rows[row]) < slots[row]:
            open_rows.setdefault(room - length, []).append(row)
            rooms |= 1 << (room - length)
    return [tuple(row) for row in rows]


def row_length(row: Row, lengths: Sequence[int]) -> int:
    """The least bucket length with room for the row's tokens, and with slots for its examples."""
    return max(sum(lengths[index] for index in row), TOKENS_PER_SLOT * len(row) if len(row) > 1 else 0)
