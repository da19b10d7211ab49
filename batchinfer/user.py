"""What a user's own code derives from. Light: importing it starts no jax."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa


class RowTask(abc.ABC):
    """What a user writes, in a module of their own, named in the job as `task.module: "package.module:Class"`."""

    @abc.abstractmethod
    def columns(self) -> pa.Schema:
        """Names and types of the prediction columns."""

    @abc.abstractmethod
    def prepare(self, fields: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """One record's model inputs, by argument name, without a batch axis.

        All records give the same shapes, except that an input named `tokens` may have any length (its rows are
        bucketed by it; other inputs of that length are padded with it, and the model also gets `lengths`).
        Raise RejectRow(reason, message), or any ValueError, TypeError or LookupError, to reject the record.
        """

    @abc.abstractmethod
    def finish(self, outputs: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """One record's prediction, a value for each of `columns()`, from its row of the model's outputs."""

    def max_length(self) -> int | None:
        """Most elements in an input named `tokens`, longer ones are rejected; None where all rows have one shape."""
        return None

    def forward(self, apply: Callable[..., Any], params: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is compiled: `apply(params, inputs)` and whatever else should happen on the device.

        A single array from the model is named `output`.
        """
        result = apply(params, inputs)
        return result if isinstance(result, Mapping) else {"output": result}
