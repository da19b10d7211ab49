"""One unit, end to end: source -> prepare -> batch -> engine -> finish -> sink -> commit.

Reading and preparing run ahead in a thread of their own; the engine holds the next window while the last one is
finished and written. All of it stays inside the unit, so its bytes depend on the unit alone (promise P3).
Knows nothing of which unit comes next, of retries, or of the machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa

from batchinfer.ahead import ahead
from batchinfer.commit import Commit, FileRecord, StagedFile
from batchinfer.engine.forward import ForwardEngine
from batchinfer.errors import InterruptedRun, StorageError
from batchinfer.halt import Halt
from batchinfer.job.spec import JobSpec
from batchinfer.ledger import Attempt, Ledger
from batchinfer.planner import Plan, Unit
from batchinfer.record import Record, Rejection
from batchinfer.report.meter import Meter
from batchinfer.report.metrics import RunCounters
from batchinfer.sinks import rejected_line
from batchinfer.sinks.base import PartWriter, Sink
from batchinfer.sinks.fields import with_fields
from batchinfer.sources.base import Source
from batchinfer.tasks import Task
from batchinfer.tasks.base import Arrays, Example

WINDOW_BYTES = 64 << 20
"""A window also ends when its records hold this much text: rows may be megabytes long."""

WINDOWS_AHEAD = 1
WINDOWS_ON_DEVICE = 2


@dataclass(frozen=True, slots=True)
class Work:
    """What all units of a job share in one process."""

    spec: JobSpec
    plan: Plan
    source: Source
    task: Task
    engine: ForwardEngine
    sink: Sink
    ledger: Ledger
    meter: Meter
    halt: Halt
    devices: str
    """For people: how many of which kind."""


@dataclass(frozen=True, slots=True)
class Window:
    """Records of one unit, in input order, that are sorted into batches together."""

    records: list[Record]
    examples: list[Example]
    rejections: list[Rejection]


def run_unit(unit: Unit, work: Work) -> Commit:
    """Runs one unit and commits it. Raises SourceError, StorageError, EngineError, InterruptedRun."""
    attempt = work.ledger.attempt(unit.id)
    output = UnitOutput(attempt, unit, work)
    try:
        on_device: deque[tuple[Window, Future[dict[str, np.ndarray]]]] = deque()
        with ahead(_windows(unit, work), depth=WINDOWS_AHEAD) as windows:
            for window in windows:
                if work.halt.asked:
                    raise InterruptedRun(f"unit {unit.id} was dropped")
                on_device.append((window, work.engine.submit(window.examples)))
                if len(on_device) >= WINDOWS_ON_DEVICE:
                    output.write(*_wait(on_device))
        while on_device:
            output.write(*_wait(on_device))
        return attempt.commit(output.close())
    except BaseException:
        output.take_back()
        _abandon(attempt, work)
        raise


def _windows(unit: Unit, work: Work) -> Iterator[Window]:
    """Reads and prepares: windows of at most `batching.window_rows` records."""
    rows = (row for piece in unit.slices for row in work.source.read(piece))
    groups = _groups(rows, work.spec.batching.window_rows)
    while True:
        with work.meter.timed("read"):
            group = next(groups, None)
        if group is None:
            return
        with work.meter.timed("prepare"):
            records = [row for row in group if isinstance(row, Record)]
            results = work.task.prepare(records)
            ready = [(r, e) for r, e in zip(records, results, strict=True) if isinstance(e, Example)]
            refused = [row for row in (*group, *results) if isinstance(row, Rejection)]
        yield Window([r for r, _ in ready], [e for _, e in ready], refused)


def _groups(rows: Iterator[Record | Rejection], rows_max: int) -> Iterator[list[Record | Rejection]]:
    group: list[Record | Rejection] = []
    size = 0
    for row in rows:
        group.append(row)
        size += _size(row)
        if len(group) >= rows_max or size >= WINDOW_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(row: Record | Rejection) -> int:
    if isinstance(row, Rejection):
        return 0
    return sum(len(value) for value in row.fields.values() if isinstance(value, str | bytes | list))


def _wait(on_device: deque[tuple[Window, Future[dict[str, np.ndarray]]]]) -> tuple[Window, Arrays]:
    window, future = on_device.popleft()
    return window, future.result()


def _abandon(attempt: Attempt, work: Work) -> None:
    """Clears the staging; if even that fails the first error is the one to report, and the end of the run sweeps."""
    try:
        attempt.abandon()
    except StorageError as error:
        work.meter.note(f"staging of unit {attempt.unit} was left behind: {error}")


class UnitOutput:
    """The files of one attempt, and the counts that must add up (promise P1)."""

    def __init__(self, attempt: Attempt, unit: Unit, work: Work):
        self._attempt, self._unit, self._work = attempt, unit, work
        schema = pa.schema([*work.plan.fields, *work.task.schema()])
        self._file = attempt.create(work.ledger.part_path(unit.id, work.sink.suffix))
        self._part: PartWriter = work.sink.open_part(cast(BinaryIO, self._file), schema)
        self._rejected: StagedFile | None = None
        self._counted = RunCounters()
        self._keys = DuplicateKeys()

    def write(self, window: Window, outputs: Arrays) -> None:
        """Finishes and writes one window, rejected rows in file order beside it."""
        work = self._work
        with work.meter.timed("finish"):
            table, unfinished = finished(work.task, window.records, outputs)
            kept = _without(window.records, unfinished)
            table, misfits = with_fields(table, kept, work.plan.fields)
        with work.meter.timed("write"):
            self._part.write(table)
            rejections = sorted((*window.rejections, *unfinished, *misfits), key=lambda r: (r.uri, r.row))
            for rejection in rejections:
                self._reject(rejection)
        self._keys.add([record.key for record in window.records])
        self._count(len(table), rejections)

    def close(self) -> Commit:
        """Makes the files durable and says what they hold."""
        counted = self._counted
        with self._work.meter.timed("write"):
            self._part.close()
            files: list[FileRecord] = [self._file.seal(counted.predictions)]
            if self._rejected is not None:
                files.append(self._rejected.seal(counted.rejections))
        return Commit(
            unit=self._unit.id,
            fingerprint=self._work.ledger.fingerprint,
            files=tuple(files),
            rows_in=counted.rows_in,
            predictions=counted.predictions,
            rejections=counted.rejections,
            rejections_by_reason=counted.rejections_by_reason,
            duplicate_keys=self._keys.duplicates,
        )

    def take_back(self) -> None:
        """The attempt failed: what it counted in the run's sum is counted by another attempt."""
        self._work.meter.add(
            RunCounters(
                rows_in=-self._counted.rows_in,
                predictions=-self._counted.predictions,
                rejections=-self._counted.rejections,
                rejections_by_reason={name: -n for name, n in self._counted.rejections_by_reason.items()},
            )
        )

    def _count(self, predictions: int, rejections: Sequence[Rejection]) -> None:
        counters = RunCounters(
            rows_in=predictions + len(rejections),
            predictions=predictions,
            rejections=len(rejections),
            rejections_by_reason=dict(Counter(rejection.error for rejection in rejections)),
        )
        self._counted = self._counted + counters
        self._work.meter.add(counters)

    def _reject(self, rejection: Rejection) -> None:
        if self._rejected is None:
            self._rejected = self._attempt.create(self._work.ledger.rejected_path(self._unit.id))
        self._rejected.write(rejected_line(rejection))


def finished(task: Task, records: Sequence[Record], outputs: Arrays) -> tuple[pa.Table, list[Rejection]]:
    """What `task.finish` gives; no records gave no outputs, and the task is not asked."""
    return task.finish(records, outputs) if records else (task.schema().empty_table(), [])


class DuplicateKeys:
    """Counts keys seen before in the same unit, at 8 bytes a key or so: duplicates are allowed, kept and reported."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self.duplicates = 0

    def add(self, keys: Sequence[str | int]) -> None:
        for key in keys:
            digest = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest())
            self.duplicates += digest in self._seen
            self._seen.add(digest)


def _without(records: list[Record], rejections: Sequence[Rejection]) -> list[Record]:
    if not rejections:
        return records
    gone = {(rejection.uri, rejection.row) for rejection in rejections}
    return [record for record in records if (record.uri, record.row) not in gone]
