"""Small helpers that turn output arrays into Arrow columns, and find rows that must be rejected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from batchinfer.record import Record, Rejection, reject


def split_finite(records: Sequence[Record], values: np.ndarray) -> tuple[np.ndarray, list[Rejection]]:
    """Indices of rows of `values` [N, ...] that are finite, and a rejection for each of the others."""
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    rejections = [
        reject(records[i], "finish", "not_finite", "the model's output holds NaN or infinity")
        for i in np.where(~finite)[0]
    ]
    return np.where(finite)[0], rejections


def vectors(values: np.ndarray) -> pa.FixedSizeListArray:
    """float[N, D] as a column of fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
