"""A model that costs next to nothing, for measuring everything but a model: it adds up the letters of a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from flax import nnx

from batchinfer import RowTask

LENGTH_MAX = 64


class LetterSum(nnx.Module):
    """`tokens: int32[B, L]` -> `total: float32[B]`."""

    def __init__(self) -> None:
        self.weight = nnx.Param(np.float32(1))

    def __call__(self, tokens: jax.Array, lengths: jax.Array) -> Mapping[str, jax.Array]:
        return {"total": tokens.sum(axis=1).astype("float32") * self.weight[...]}


def build() -> nnx.Module:
    return LetterSum()


class LetterSums(RowTask):
    def columns(self) -> pa.Schema:
        return pa.schema([("total", pa.float32())])

    def max_length(self) -> int | None:
        return LENGTH_MAX

    def prepare(self, fields: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        return {"tokens": np.frombuffer(fields["text"].encode(), np.uint8).astype(np.int32)}

    def finish(self, outputs: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        return {"total": float(outputs["total"])}
