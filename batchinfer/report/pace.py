"""How fast a run goes and how long it will take: counters in, rates out. No threads, no output."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from batchinfer.report.metrics import RunCounters

WINDOW_SECONDS = 30.0
"""Rates are those of the last half minute."""


@dataclass(frozen=True, slots=True)
class Totals:
    """How much there is to do. `rows` None: not known before reading; then bytes tell how far, else units."""

    units: int
    rows: int | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, replaceable in tests. `elapsed`: seconds that never run backwards; `now`: the date, UTC."""

    elapsed: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the run. `share`: 0..1 of the work; `eta_seconds` None: cannot be told yet."""

    rows: int
    rows_total: int | None
    share: float
    rows_per_second: float
    tokens_per_second: float
    units: int
    units_total: int
    rejected: int
    elapsed_seconds: float
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class _Sample:
    seconds: float
    rows: int
    tokens: int
    share: float

    def rates_since(self, base: _Sample) -> tuple[float, float, float]:
        """Rows, tokens and share per second."""
        seconds = self.seconds - base.seconds
        if seconds <= 0:
            return 0.0, 0.0, 0.0
        return (
            (self.rows - base.rows) / seconds,
            (self.tokens - base.tokens) / seconds,
            (self.share - base.share) / seconds,
        )


class Pace:
    """Turns snapshots into rates: over the window while the run goes, over the whole run at its end."""

    def __init__(self, totals: Totals, start: RunCounters, clock: Clock):
        self._totals = totals
        self._clock = clock
        self._first = self._sample(start)
        self._window = deque([self._first])
        self.start = start

    def read(self, counters: RunCounters, overall: bool = False) -> Reading:
        latest = self._sample(counters)
        self._slide(latest)
        rows_rate, tokens_rate, share_rate = latest.rates_since(self._first if overall else self._window[0])
        if share_rate <= 0:  # nothing moved within the window: the whole run is the better guess
            share_rate = latest.rates_since(self._first)[2]
        return Reading(
            rows=counters.rows_in,
            rows_total=self._totals.rows,
            share=latest.share,
            rows_per_second=max(rows_rate, 0.0),  # a unit that is dropped takes its rows back
            tokens_per_second=max(tokens_rate, 0.0),
            units=counters.units_done + counters.units_reused,
            units_total=self._totals.units,
            rejected=counters.rejections,
            elapsed_seconds=latest.seconds - self._first.seconds,
            eta_seconds=(1 - latest.share) / share_rate if share_rate > 0 else None,
        )

    def _slide(self, latest: _Sample) -> None:
        """Keeps one sample at or before the window's beginning, so that the window is never shorter than it says."""
        self._window.append(latest)
        while len(self._window) > 2 and self._window[1].seconds <= latest.seconds - WINDOW_SECONDS:
            self._window.popleft()

    def _sample(self, counters: RunCounters) -> _Sample:
        return _Sample(self._clock.elapsed(), counters.rows_in, counters.tokens, _share(counters, self._totals))


def _share(counters: RunCounters, totals: Totals) -> float:
    match totals:
        case Totals(rows=int(rows)) if rows:
            share = counters.rows_in / rows
        case Totals(rows=None, size_bytes=int(size_bytes)) if size_bytes:
            share = counters.bytes_read / size_bytes
        case Totals(units=units) if units:
            share = (counters.units_done + counters.units_reused) / units
        case _:
            share = 1.0
    return min(share, 1.0)
