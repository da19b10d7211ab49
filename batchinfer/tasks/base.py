"""What a task is: what a record means to a model, and what the model's numbers mean to a user.

`prepare` and `finish` run on the host over many records at a time; `forward` is traced once per bucket.
A task knows models and the shapes the engine wants; it knows nothing of files, units or runners.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from batchinfer.record import Record, Rejection

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Example:
    """One record, ready for the device.

    `arrays`: without a batch axis. For texts `tokens: int32[L]` (and what else the model reads, same L);
    `length`: L, the size that buckets go by; 0 for models whose rows all have one shape.
    """

    arrays: Arrays
    length: int


class Task(Protocol):
    """One kind of task, bound to its part of the job and to a loaded model. Final classes; no inheritance needed."""

    @property
    def max_length(self) -> int | None:
        """Longest example; None where all have one shape."""
        ...

    @property
    def shares_rows(self) -> bool:
        """Whether `forward` can take several examples in a row (inputs as in engine/windows.py, outputs by slot)."""
        ...

    def prepare(self, records: Sequence[Record]) -> list[Example | Rejection]:
        """One result per record, in order. A record that cannot be used becomes a Rejection (stage "prepare")."""
        ...

    def forward(self, params: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The pure function that is compiled: padded `inputs` ([B, ...] each) to outputs ([B, ...] each).

        For texts `inputs` holds `tokens: int32[B, L]` and `lengths: int32[B]` (0 marks a padding row).
        """
        ...

    def finish(self, records: Sequence[Record], outputs: Arrays) -> tuple[pa.Table, list[Rejection]]:
        """Predictions of `records` (output arrays [N, ...], same order) as a table of `schema()`, without the
        rows rejected here (stage "finish": NaN and the like); both keep the order of `records`."""
        ...

    def schema(self) -> pa.Schema:
        """The prediction columns; the key and passed-through columns are added in front by the sink side."""
        ...
