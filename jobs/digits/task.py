"""What a row of data/digits.parquet means to the model, and what the model's answer means to a user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from batchinfer.errors import RejectRow
from batchinfer.user import RowTask

SIDE = 8
PIXEL_MAX = 16.0


class DigitTask(RowTask):
    """`pixels` (64 numbers 0 to 16, row by row) to the digit they show and how sure the model is of it."""

    def columns(self) -> pa.Schema:
        return pa.schema([("label", pa.int64()), ("probability", pa.float32())])

    def prepare(self, fields: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """`image: float32[8, 8, 1]` from 0 to 1."""
        pixels = np.asarray(fields["pixels"], np.float32)
        if pixels.shape != (SIDE * SIDE,):
            raise RejectRow("wrong_length", f"pixels should be {SIDE * SIDE} numbers, got shape {list(pixels.shape)}")
        if not np.all((pixels >= 0) & (pixels <= PIXEL_MAX)):  # also refuses NaN
            raise RejectRow("out_of_range", f"pixels should be from 0 to {PIXEL_MAX:g}")
        return {"image": to_image(pixels)}

    def finish(self, outputs: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """`output` is the model's one array: logits, float32[10]."""
        logits = outputs["output"].astype(np.float64)
        label = int(logits.argmax())
        return {"label": label, "probability": float(1 / np.exp(logits - logits[label]).sum())}


def to_image(pixels: np.ndarray) -> np.ndarray:
    """float32[..., 64] from 0 to 16, to float32[..., 8, 8, 1] from 0 to 1."""
    return (pixels / PIXEL_MAX).reshape(*pixels.shape[:-1], SIDE, SIDE, 1).astype(np.float32)
