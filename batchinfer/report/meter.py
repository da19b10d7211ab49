"""Where the threads of one process count: a running sum of RunCounters, safe to add to from anywhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from batchinfer.report.metrics import RunCounters

Stage = Literal["read", "prepare", "finish", "write"]


@dataclass(slots=True)
class Meter:
    """A sum, and the lines a person should read at the end (what was chosen, what went wrong but was mended)."""

    _sum: RunCounters = field(default_factory=RunCounters)
    _notes: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, counters: RunCounters) -> None:
        with self._lock:
            self._sum = self._sum + counters

    def snapshot(self) -> RunCounters:
        return self._sum

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Adds the block's wall seconds to the stage's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(replace(RunCounters(), **{f"{stage}_seconds": time.perf_counter() - start}))

    def note(self, line: str) -> None:
        with self._lock:
            if line not in self._notes:
                self._notes.append(line)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)
