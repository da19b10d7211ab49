"""What an engine did, as numbers that add up: over batches, engines and workers. Knows nothing of devices."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from batchinfer.engine.buckets import Bucket


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """Sums; `a + b` is both. Rows and tokens count once each; "issued" ones include padding.

    `tokens*` stay 0 for rows of one fixed shape. `batches`: per bucket, one for each device that had rows.
    `compile_seconds`: tracing, compiling or loading from the cache, added over threads that may overlap.
    `available_seconds`: from the first submit to the last result, times what the device can do at once;
    `busy_seconds`: how much of it was used.
    """

    rows: int = 0
    rows_issued: int = 0
    tokens: int = 0
    tokens_issued: int = 0
    batches: Mapping[Bucket, int] = field(default_factory=dict)
    compilations: int = 0
    cache_hits: int = 0
    compile_seconds: float = 0.0
    busy_seconds: float = 0.0
    available_seconds: float = 0.0
    oom_notches: int = 0

    def __add__(self, other: EngineCounters) -> EngineCounters:
        return EngineCounters(
            rows=self.rows + other.rows,
            rows_issued=self.rows_issued + other.rows_issued,
            tokens=self.tokens + other.tokens,
            tokens_issued=self.tokens_issued + other.tokens_issued,
            batches=dict(Counter(self.batches) + Counter(other.batches)),
            compilations=self.compilations + other.compilations,
            cache_hits=self.cache_hits + other.cache_hits,
            compile_seconds=self.compile_seconds + other.compile_seconds,
            busy_seconds=self.busy_seconds + other.busy_seconds,
            available_seconds=self.available_seconds + other.available_seconds,
            oom_notches=self.oom_notches + other.oom_notches,
        )

    @property
    def padding_share(self) -> float:
        """Of the tokens (or rows, where there are none) that were computed, the share nobody asked for."""
        useful, issued = (self.tokens, self.tokens_issued) if self.tokens_issued else (self.rows, self.rows_issued)
        return 1 - useful / issued if issued else 0.0

    @property
    def idle_share(self) -> float:
        """Share of the time between the first submit and the last result in which the device had nothing to do."""
        return 1 - self.busy_seconds / self.available_seconds if self.available_seconds else 0.0


class Occupancy:
    """How busy the device was: the integral over time of min(batches on it, what it can do at once). Thread-safe."""

    def __init__(self, parallel: int, clock: Callable[[], float] = time.perf_counter):
        self._parallel = parallel
        self._clock = clock
        self._lock = threading.Lock()
        self._on_device = 0
        self._busy = 0.0
        self._first: float | None = None
        self._changed = 0.0

    def submitted(self) -> None:
        """The first call starts the clock."""
        with self._lock:
            if self._first is None:
                self._first = self._changed = self._clock()

    def enter(self) -> None:
        """A batch goes to the device."""
        self._step(+1)

    def leave(self) -> None:
        """Its results are on the host (or it failed)."""
        self._step(-1)

    def seconds(self) -> tuple[float, float]:
        """(busy, available), up to the last `enter` or `leave`."""
        with self._lock:
            first = self._changed if self._first is None else self._first
            return self._busy, (self._changed - first) * self._parallel

    def _step(self, change: int) -> None:
        with self._lock:
            now = self._clock()
            self._busy += min(self._on_device, self._parallel) * (now - self._changed)
            self._changed = now
            self._on_device += change
