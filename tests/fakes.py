"""A model and a task that can be worked out by hand, for tests of everything around them.

The model adds up the letters of a text (a=1 ... z=26) and multiplies by its one weight:

    "abc" -> tokens [1, 2, 3] -> total 6.0;  with weight 2: 12.0

The task rejects a text that is missing ("KeyError"), empty ("empty") or "!"-marked ("marked"), and gives
`total: float32` and `letters: int32`. A text beginning with "nan" makes the model answer NaN, which `finish` rejects.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from flax import nnx

from batchinfer import RejectRow, RowTask


class LetterSum(nnx.Module):
    def __init__(self, weight: float = 1.0):
        self.weight = nnx.Param(np.float32(weight))

    def __call__(self, tokens: Any, lengths: Any) -> Mapping[str, Any]:
        total = tokens.sum(axis=1).astype("float32") * self.weight[...]
        return {"total": total, "letters": lengths}


def build(weight: float = 1.0) -> nnx.Module:
    return LetterSum(weight)


class LetterTask(RowTask):
    def __init__(self, pause_seconds: float = 0.0):
        self._pause_seconds = pause_seconds

    def columns(self) -> pa.Schema:
        return pa.schema([("total", pa.float32()), ("letters", pa.int32())])

    def prepare(self, fields: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        time.sleep(self._pause_seconds)
        text = fields["text"]
        if text == "":
            raise RejectRow("empty", "the text is empty")
        if text.startswith("!"):
            raise RejectRow("marked", "the text is marked")
        return {"tokens": np.array([ord(letter) - 96 for letter in text[:64]], np.int32)}

    def max_length(self) -> int | None:
        return 64

    def finish(self, outputs: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        return {"total": float(outputs["total"]), "letters": int(outputs["letters"])}
