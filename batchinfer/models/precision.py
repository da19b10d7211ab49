"""In which number type matrix products are done; everything else in the models is float32.

Knows nothing of models or checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


@dataclass(frozen=True, slots=True)
class Precision:
    """`products`: type of both operands of a matrix product, and in which large weights are kept. Sums are float32."""

    products: DTypeLike

    def einsum(self, formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
        """The product as float32; operands are rounded to `products` first."""
        # HIGHEST keeps float32 operands float32 on TPU and GPU, which would use fewer bits by default.
        return jnp.einsum(
            formula,
            left.astype(self.products),
            right.astype(self.products),
            precision=jax.lax.Precision.HIGHEST if self.products == jnp.float32 else None,
            preferred_element_type=jnp.float32,
        )


FLOAT32 = Precision(jnp.float32)
BFLOAT16 = Precision(jnp.bfloat16)


def resolve_dtype(asked: Literal["auto", "float32", "bfloat16"], platform: str) -> Precision:
    """What `model.dtype` means on `platform` (cpu, gpu, tpu).

    `auto` is bfloat16 products everywhere: with float32 sums, cosine to float32 stays above 0.9999.
    """
    match asked:
        case "float32":
            return FLOAT32
        case "auto" | "bfloat16":
            return BFLOAT16
