"""The task and the engine of jobs/embed.yaml with nothing around them: no reading, no files, no ledger, no runner.

What `batchinfer` puts around an engine is measured against this; peers, which have no more than this, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import JOB

import batchinfer
from batchinfer.engine.forward import ForwardEngine
from batchinfer.halt import Halt
from batchinfer.ledger import Ledger
from batchinfer.record import Record
from batchinfer.runners.worker import open_work
from batchinfer.storage import storage_for
from batchinfer.tasks import Example


class Bare:
    """Opened as a run opens it, by `overrides` on the job; `records` are those of its source, read once."""

    def __init__(self, overrides: dict[str, Any]):
        job = batchinfer.load_job(JOB, overrides)
        output = job.spec.output_path  # named, never written to
        self._work = open_work(job.spec, Ledger(output, storage_for(output), batchinfer.plan(job)), None, Halt())
        pieces = [piece for unit in self._work.plan.units for piece in unit.slices]
        rows = [row for piece in pieces for row in self._work.source.read(piece)]
        self.records = [row for row in rows if isinstance(row, Record)]

    @property
    def engine(self) -> ForwardEngine:
        return self._work.engine

    def prepared(self) -> list[Example]:
        """Every record, tokenised; ValueError if one is rejected, for then the sides would not do the same work."""
        results = self._work.task.prepare(self.records)
        examples = [result for result in results if isinstance(result, Example)]
        if len(examples) != len(self.records):
            raise ValueError(f"{len(self.records) - len(examples)} of the sentences were rejected")
        return examples

    def compile(self, example: Example) -> float:
        """Has all buckets ready; seconds of compiling or loading, added over threads."""
        for program in self.engine.warm_up(example):
            program.result()
        return self.engine.counters().compile_seconds

    def embed(self, examples: Sequence[Example]) -> np.ndarray:
        """float32[N, D], in windows of the job's size, all submitted before the first is waited for."""
        rows = self._work.spec.batching.window_rows
        windows = [examples[start : start + rows] for start in range(0, len(examples), rows)]
        futures = [self.engine.submit(window) for window in windows]
        return np.concatenate([future.result()["embedding"] for future in futures])

    def close(self) -> None:
        self.engine.close()
