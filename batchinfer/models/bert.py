"""The BERT encoder family: BERT and MiniLM, RoBERTa, XLM-R, CamemBERT, DistilBERT, with their heads.

One set of modules; the members differ only in `BertConfig`. The maths are functions over arrays, below the modules.
Knows nothing of checkpoints, tokenizers or the mesh. Shapes in names: B rows, L length, D width, H heads, K width of a
head, F inner width, C labels, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from batchinfer.models.precision import Precision

MASKED = -1e9
"""Added to the score of a padding position: its weight becomes exactly 0, yet a row of padding alone stays finite."""


@dataclass(frozen=True, slots=True)
class NoHead:
    """The model gives its hidden states."""


@dataclass(frozen=True, slots=True)
class SequenceHead:
    """One answer per row, read off the first token; a cross-encoder has one label."""

    labels: int
    activation: Literal["tanh", "relu"] = "tanh"


@dataclass(frozen=True, slots=True)
class TokenHead:
    """One answer per token."""

    labels: int


Activation = Literal["gelu", "gelu_tanh", "relu", "tanh"]
Head = NoHead | SequenceHead | TokenHead


@dataclass(frozen=True, slots=True)
class BertConfig:
    """What tells the members of the family apart.

    `token_types`: rows of that table; 0: the model has none, 1: the input's token types have no effect.
    `positions`: rows of the position table. `padding_id`: RoBERTa counts positions from padding_id + 1, over the tokens
    that are not padding_id; None counts from 0.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    positions: int
    token_types: int
    norm_epsilon: float
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    padding_id: int | None = None
    head: Head = NoHead()

    @property
    def max_length(self) -> int:
        """Most tokens in a row."""
        return self.positions if self.padding_id is None else self.positions - self.padding_id - 1


class Bert(nnx.Module):
    """Tokens to hidden states, or with a head to logits."""

    def __init__(self, config: BertConfig, precision: Precision, *, rngs: nnx.Rngs):
        self.config = config
        self.embeddings = Embeddings(config, precision, rngs)
        self.layers = nnx.List([Layer(config, precision, rngs) for _ in range(config.layers)])
        self.head = _head(config, precision, rngs)

    def __call__(
        self,
        tokens: jax.Array,
        lengths: jax.Array | None = None,
        token_types: jax.Array | None = None,
        segments: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """`tokens`, `token_types`: int32[B, L], padded on the right; `lengths`: int32[B], 0 for a row of padding.

        Or several texts in a row: instead of `lengths`, `segments: int32[B, L]` numbers them (0: padding), and
        `positions: int32[B, L]` counts from 0 in each; tokens see their own text only. Not with a sequence head.

        Gives `hidden: float32[B, L, D]` or `logits: float32[B, C]` or `float32[B, L, C]`. What is beyond a row's length
        has no effect on the rest and no meaning. ValueError if L is more than the position table holds.
        """
        hidden_BxLxD = self.embeddings(tokens, token_types, positions)
        if segments is not None:
            mask_Bx1xLxL = segment_mask(segments)
        elif lengths is not None:
            mask_Bx1xLxL = padding_mask(lengths, tokens.shape[1])
        else:
            raise ValueError("rows need lengths, or segments where several texts share one")
        for layer in self.layers:
            hidden_BxLxD = layer(hidden_BxLxD, mask_Bx1xLxL)
        if self.head is None:
            return {"hidden": hidden_BxLxD}
        return {"logits": self.head(hidden_BxLxD)}


class Embeddings(nnx.Module):
    """Word, position and token type, summed and normalised in float32."""

    def __init__(self, config: BertConfig, precision: Precision, rngs: nnx.Rngs):
        self.config = config
        self.word = _weight(rngs, (config.vocabulary, config.width), precision.products)
        self.position = _weight(rngs, (config.positions, config.width))
        self.token_type = _weight(rngs, (config.token_types, config.width)) if config.token_types else None
        self.norm = Norm(config, rngs)

    def __call__(
        self, tokens_BxL: jax.Array, token_types_BxL: jax.Array | None, counted_BxL: jax.Array | None
    ) -> jax.Array:
        if counted_BxL is not None:
            positions_BxL = counted_BxL + (0 if self.config.padding_id is None else self.config.padding_id + 1)
        elif tokens_BxL.shape[1] > self.config.max_length:
            raise ValueError(f"rows of {tokens_BxL.shape[1]} tokens, but the model reads {self.config.max_length}")
        else:
            positions_BxL = position_ids(tokens_BxL, self.config.padding_id)
        summed_BxLxD = self.word[...][tokens_BxL].astype(jnp.float32) + self.position[...][positions_BxL]
        if self.token_type is not None:
            table_TxD = self.token_type[...]
            typed = token_types_BxL is not None and self.config.token_types > 1
            summed_BxLxD += table_TxD[token_types_BxL] if typed else table_TxD[0]
        return self.norm(summed_BxLxD)


class Layer(nnx.Module):
    """Attention and a two-layer network, each added to its input and normalised afterwards."""

    def __init__(self, config: BertConfig, precision: Precision, rngs: nnx.Rngs):
        self.heads = config.heads
        self.activation: Activation = config.activation
        self.precision = precision
        self.qkv = Dense(config.width, 3 * config.width, precision, rngs)
        self.out = Dense(config.width, config.width, precision, rngs)
        self.attention_norm = Norm(config, rngs)
        self.up = Dense(config.width, config.inner, precision, rngs)
        self.down = Dense(config.inner, config.width, precision, rngs)
        self.norm = Norm(config, rngs)

    def __call__(self, x_BxLxD: jax.Array, mask_Bx1xLxL: jax.Array) -> jax.Array:
        mixed_BxLxD = attend(self.qkv(x_BxLxD), mask_Bx1xLxL, self.heads, self.precision)
        x_BxLxD = self.attention_norm(x_BxLxD + self.out(mixed_BxLxD))
        inner_BxLxF = activate(self.up(x_BxLxD), self.activation)
        return self.norm(x_BxLxD + self.down(inner_BxLxF))


class Dense(nnx.Module):
    def __init__(self, width_in: int, width_out: int, precision: Precision, rngs: nnx.Rngs):
        self.precision = precision
        self.kernel = _weight(rngs, (width_in, width_out), precision.products)
        self.bias = nnx.Param(jnp.zeros(width_out, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.precision.einsum("...i,io->...o", x, self.kernel[...]) + self.bias[...]


class Norm(nnx.Module):
    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.epsilon = config.norm_epsilon
        self.scale = nnx.Param(jnp.ones(config.width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(config.width, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)


class SequenceClassifier(nnx.Module):
    def __init__(self, head: SequenceHead, width: int, precision: Precision, rngs: nnx.Rngs):
        self.activation: Activation = head.activation
        self.dense = Dense(width, width, precision, rngs)
        self.out = Dense(width, head.labels, precision, rngs)

    def __call__(self, hidden_BxLxD: jax.Array) -> jax.Array:
        return self.out(activate(self.dense(hidden_BxLxD[:, 0]), self.activation))


class TokenClassifier(nnx.Module):
    def __init__(self, head: TokenHead, width: int, precision: Precision, rngs: nnx.Rngs):
        self.out = Dense(width, head.labels, precision, rngs)

    def __call__(self, hidden_BxLxD: jax.Array) -> jax.Array:
        return self.out(hidden_BxLxD)


def _head(config: BertConfig, precision: Precision, rngs: nnx.Rngs) -> SequenceClassifier | TokenClassifier | None:
    match config.head:
        case NoHead():
            return None
        case SequenceHead() as head:
            return SequenceClassifier(head, config.width, precision, rngs)
        case TokenHead() as head:
            return TokenClassifier(head, config.width, precision, rngs)


def _weight(rngs: nnx.Rngs, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> nnx.Param[jax.Array]:
    return nnx.Param((0.02 * jax.random.normal(rngs.params(), shape)).astype(dtype))


# --- the maths ------------------------------------------------------------------------------------------------------


def position_ids(tokens_BxL: jax.Array, padding_id: int | None) -> jax.Array:
    """Rows of the position table: [1, L] or, counting only tokens that are not `padding_id`, [B, L]."""
    if padding_id is None:
        return jnp.arange(tokens_BxL.shape[1])[None, :]
    counted_BxL = tokens_BxL != padding_id
    return jnp.where(counted_BxL, padding_id + jnp.cumsum(counted_BxL, axis=1), padding_id)


def padding_mask(lengths_B: jax.Array, length: int) -> jax.Array:
    """float32[B, 1, 1, L] to add to attention scores: 0 within a row, `MASKED` beyond."""
    inside_BxL = jnp.arange(length)[None, :] < lengths_B[:, None]
    return jnp.where(inside_BxL, 0.0, MASKED)[:, None, None, :]


def segment_mask(segments_BxL: jax.Array) -> jax.Array:
    """float32[B, 1, L, L] to add to attention scores: 0 within a text, `MASKED` between texts of a row."""
    same_BxLxL = segments_BxL[:, :, None] == segments_BxL[:, None, :]
    return jnp.where(same_BxLxL, 0.0, MASKED)[:, None]


def attend(qkv_BxLx3D: jax.Array, mask_Bx1xLxL: jax.Array, heads: int, precision: Precision) -> jax.Array:
    """Attention of every token over what the mask lets it see. [B, L, 3D] -> [B, L, D]

    The weights are divided by their sum after the product with the values: L / K times fewer divisions.
    """
    B, L, width = qkv_BxLx3D.shape
    q_BxLxHxK, k_BxLxHxK, v_BxLxHxK = jnp.moveaxis(qkv_BxLx3D.reshape(B, L, 3, heads, -1), 2, 0)
    scaled_BxLxHxK = q_BxLxHxK * (width // 3 // heads) ** -0.5
    scores_BxHxLxM = precision.einsum("blhk,bmhk->bhlm", scaled_BxLxHxK, k_BxLxHxK) + mask_Bx1xLxL
    weights_BxHxLxM = jnp.exp(scores_BxHxLxM - scores_BxHxLxM.max(axis=-1, keepdims=True))
    mixed_BxHxLxK = precision.einsum("bhlm,bmhk->bhlk", weights_BxHxLxM, v_BxLxHxK)
    mixed_BxHxLxK /= weights_BxHxLxM.sum(axis=-1, keepdims=True)
    return jnp.swapaxes(mixed_BxHxLxK, 1, 2).reshape(B, L, width // 3)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Mean 0 and variance 1 over the last axis, then scale and shift."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon) * scale + bias


def activate(x: jax.Array, name: Activation) -> jax.Array:
    match name:
        case "gelu":
            return jax.nn.gelu(x, approximate=False)
        case "gelu_tanh":
            return jax.nn.gelu(x, approximate=True)
        case "relu":
            return jax.nn.relu(x)
        case "tanh":
            return jnp.tanh(x)
