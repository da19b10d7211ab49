"""What a loaded model is to the rest of the product: one pure function over a pytree of parameters, and its facts.

Knows nothing of tasks, batches or where the weights came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batchinfer.models.tokenizer import TextTokenizer

Params = Any
Inputs = Mapping[str, Any]
Outputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model whose parameters lie on the mesh.

    `apply(params, inputs) -> outputs` is pure and traceable. For text encoders `inputs` holds
    `tokens: int32[B, L]`, `lengths: int32[B]` and optionally `token_types: int32[B, L]`; `outputs` holds
    `hidden: float32[B, L, D]`, or with a head `logits: float32[B, C]` (sequence) or `float32[B, L, C]` (token).
    For a user's own module `inputs` are passed by name and `outputs` is what it returns.
    """

    name: str
    apply: Callable[[Params, Inputs], Outputs]
    params: Params
    parameter_count: int
    parameter_bytes: int
    tokenizer: TextTokenizer | None = None
    max_length: int | None = None
    """Most tokens the model can read (position table), special tokens included."""
    labels: tuple[str, ...] = ()
    pooling: str | None = None
    """What the checkpoint recommends (sentence-transformers' 1_Pooling/config.json), if it does."""
    shares_rows: bool = False
    """Whether `apply` also takes several texts in a row: `segments, positions: int32[B, L]` instead of `lengths`."""
    flops_per_row: Callable[[int], float] | None = None
    """Useful floating point operations of one row of that many tokens; None where nobody counted."""
