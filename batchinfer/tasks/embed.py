"""Embeddings: one vector per text, pooled over its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from batchinfer.job.spec import EmbedTask
from batchinfer.models.base import LoadedModel
from batchinfer.record import Record, Rejection
from batchinfer.tasks.base import Arrays, Example
from batchinfer.tasks.columns import split_finite, vectors
from batchinfer.tasks.texts import TextReader

Array = jax.Array


@dataclass(frozen=True, slots=True)
class Embed:
    """`tokens: int32[B, L]` -> `embedding: float32[B, D]`, or with several texts in a row `float32[B, S, D]`."""

    spec: EmbedTask
    model: LoadedModel
    reader: TextReader
    width: int

    @property
    def max_length(self) -> int | None:
        return self.reader.max_length

    @property
    def pooling(self) -> str:
        return self.spec.pooling or self.model.pooling or "mean"

    @property
    def shares_rows(self) -> bool:
        return self.model.shares_rows and self.pooling != "max"

    def prepare(self, records: Sequence[Record]) -> list[Example | Rejection]:
        return self.reader.examples(records)

    def forward(self, params: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if "segments" in inputs:
            texts = {name: inputs[name] for name in ("tokens", "segments", "positions")}
            hidden = self.model.apply(params, texts)["hidden"]
            pooled = pool_slots(hidden, inputs["segments"], inputs["starts"], inputs["lengths"], self.pooling)
        else:
            hidden = self.model.apply(params, inputs)["hidden"]
            pooled = pool(hidden, inputs["lengths"], self.pooling)
        return {"embedding": unit_length(pooled) if self.spec.normalize else pooled}

    def finish(self, records: Sequence[Record], outputs: Arrays) -> tuple[pa.Table, list[Rejection]]:
        values = outputs["embedding"].astype(np.dtype(self.spec.output_dtype), copy=False)
        kept, rejections = split_finite(records, values)
        values = values if len(kept) == len(values) else values[kept]
        return pa.Table.from_arrays([vectors(values)], schema=self.schema()), rejections

    def schema(self) -> pa.Schema:
        item = pa.float16() if self.spec.output_dtype == "float16" else pa.float32()
        return pa.schema([pa.field("embedding", pa.list_(item, self.width))])


def pool(hidden_BxLxD: Array, lengths_B: Array, pooling: str) -> Array:
    """One vector per row: the mean or maximum over its tokens, or its first token. Rows of length 0 give zeros."""
    if pooling == "cls":
        return hidden_BxLxD[:, 0]
    mask_BxLx1 = (jnp.arange(hidden_BxLxD.shape[1])[None, :] < lengths_B[:, None])[..., None]
    if pooling == "max":
        lowest = jnp.where(lengths_B[:, None, None] > 0, jnp.finfo(hidden_BxLxD.dtype).min, 0)
        return jnp.max(jnp.where(mask_BxLx1, hidden_BxLxD, lowest), axis=1)
    total_BxD = jnp.sum(jnp.where(mask_BxLx1, hidden_BxLxD, 0), axis=1)
    return total_BxD / jnp.maximum(lengths_B, 1)[:, None].astype(total_BxD.dtype)


def pool_slots(hidden_BxLxD: Array, segments_BxL: Array, starts_BxS: Array, lengths_BxS: Array, pooling: str) -> Array:
    """One vector per text of a row: the mean over its tokens ("mean") or its first token ("cls"). [B, S, D]

    The sum is a product with a matrix of zeros and ones: exact, and the device is good at it. Empty slots mean nothing.
    """
    if pooling == "cls":
        return jnp.take_along_axis(hidden_BxLxD, starts_BxS[..., None], axis=1)
    slots_S = 1 + jnp.arange(starts_BxS.shape[1])
    belongs_BxSxL = (segments_BxL[:, None, :] == slots_S[:, None]).astype(hidden_BxLxD.dtype)
    total_BxSxD = jnp.einsum("bsl,bld->bsd", belongs_BxSxL, hidden_BxLxD, precision=jax.lax.Precision.HIGHEST)
    return total_BxSxD / jnp.maximum(lengths_BxS, 1)[..., None].astype(total_BxSxD.dtype)


def unit_length(x: Array) -> Array:
    """Scaled to Euclidean length 1 along the last axis; a zero vector stays zero."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
