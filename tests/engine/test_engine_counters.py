"""Counters add up, and idle time is what they say."""

from __future__ import annotations

import pytest

from batchinfer.engine.buckets import Bucket
from batchinfer.engine.counters import EngineCounters, Occupancy

A, B = Bucket(8, 4), Bucket(16, 2)


def test_counters_add_up() -> None:
    one = EngineCounters(rows=3, rows_issued=4, tokens=10, tokens_issued=32, batches={A: 1}, busy_seconds=1.0)
    two = EngineCounters(rows=2, rows_issued=2, tokens=30, tokens_issued=32, batches={A: 1, B: 1}, available_seconds=4)
    both = one + two
    assert (both.rows, both.tokens, both.batches) == (5, 40, {A: 2, B: 1})
    assert both.padding_share == pytest.approx(1 - 40 / 64)
    assert both.idle_share == pytest.approx(0.75)
    assert one + EngineCounters() == one


def test_padding_of_rows_without_length_is_counted_in_rows() -> None:
    assert EngineCounters(rows=6, rows_issued=8).padding_share == pytest.approx(0.25)
    assert EngineCounters().padding_share == EngineCounters().idle_share == 0.0


@pytest.mark.parametrize(("parallel", "busy", "available"), [(1, 4.0, 6.0), (2, 5.0, 12.0)])
def test_time_is_busy_up_to_what_the_device_does_at_once(parallel: int, busy: float, available: float) -> None:
    """Asked for at 0; on the device: one batch from 1 to 3, one from 2 to 4, one from 5 to 6."""
    ticks = iter([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    occupancy = Occupancy(parallel, clock=lambda: next(ticks))
    enter, leave = occupancy.enter, occupancy.leave
    for step in [occupancy.submitted, enter, enter, leave, leave, enter, leave]:
        step()
    assert occupancy.seconds() == (busy, available)
