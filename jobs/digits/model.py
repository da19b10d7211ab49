"""A small convolutional network for 8 x 8 images of digits: an ordinary Flax module.

It knows nothing of batchinfer. A job names `build`; the model gets what the task prepared, by argument name, and is
run in evaluation mode (no dropout).
"""

from __future__ import annotations

import jax
from flax import nnx

CLASSES = 10


class DigitNet(nnx.Module):
    """Two convolutions, a halving of the image, and a linear layer."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, width, kernel_size=(3, 3), rngs=rngs)
        self.second = nnx.Conv(width, 2 * width, kernel_size=(3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.answer = nnx.Linear(4 * 4 * 2 * width, CLASSES, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """`image: float32[B, 8, 8, 1]` from 0 to 1, to logits `float32[B, 10]`."""
        x = nnx.relu(self.first(image))
        x = nnx.relu(self.second(x))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return self.answer(self.dropout(x.reshape(x.shape[0], -1)))


def build(width: int = 16) -> nnx.Module:
    """The network with random parameters; `width` is the number of channels of the first layer."""
    return DigitNet(width, rngs=nnx.Rngs(0))
