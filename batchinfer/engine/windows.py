"""The host's side of a batch: examples into padded arrays, result arrays back to the rows they belong to.

A window is what one `submit` brings: its rows are sorted into batches together and come back together.
Numpy only; knows nothing of devices or threads but for one lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from batchinfer.engine.buckets import Bucket
from batchinfer.errors import EngineError

LENGTHS = "lengths"
"""The input the engine adds where rows have lengths: int32[B], 0 for rows that are padding."""

Shape = tuple[int, ...]


class Example(Protocol):
    """One row: arrays without a batch axis, and its length (0 where all rows have one shape).

    Where rows have lengths every array has the length as axis 0, scalars aside.
    """

    @property
    def arrays(self) -> Mapping[str, np.ndarray]: ...

    @property
    def length(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Field:
    """One input array: its dtype, whether axis 0 is the row's length, and the axes that never change."""

    dtype: np.dtype
    by_length: bool
    rest: Shape

    def shape(self, length: int) -> Shape:
        return (length, *self.rest) if self.by_length else self.rest


@dataclass(frozen=True, slots=True)
class Signature:
    """What every row of one engine looks like; fixed by the first one."""

    fields: Mapping[str, Field]
    has_length: bool

    @classmethod
    def of(cls, example: Example) -> Signature:
        """Raises EngineError for arrays that no device takes as they are."""
        fields = {}
        for name, array in example.arrays.items():
            _check_dtype(name, array.dtype)
            by_length = example.length > 0 and array.ndim > 0
            fields[name] = Field(array.dtype, by_length, array.shape[1:] if by_length else array.shape)
        if not fields or LENGTHS in fields:
            raise EngineError(f"an example needs at least one array, none called `{LENGTHS}`; it has {sorted(fields)}")
        return cls(fields, example.length > 0)

    def check(self, index: int, example: Example) -> None:
        """Raises EngineError if row `index` differs from the rows before it."""
        if example.arrays.keys() != self.fields.keys():
            raise EngineError(f"row {index} has arrays {sorted(example.arrays)}, others {sorted(self.fields)}")
        for name, field in self.fields.items():
            array, shape = example.arrays[name], field.shape(example.length)
            if array.shape != shape or array.dtype != field.dtype:
                raise EngineError(
                    f"row {index}: `{name}` is {array.dtype}{list(array.shape)}, not {field.dtype}{list(shape)} "
                    "as in the rows before it; the task's prepare must reject or reshape it"
                )

    def shapes(self, bucket: Bucket, devices: int) -> dict[str, tuple[Shape, np.dtype]]:
        """Shape and dtype of each input of a batch on so many devices."""
        rows = bucket.rows * devices
        shapes = {name: ((rows, *field.shape(bucket.length)), field.dtype) for name, field in self.fields.items()}
        return shapes | ({LENGTHS: ((rows,), np.dtype(np.int32))} if self.has_length else {})


def _check_dtype(name: str, dtype: np.dtype) -> None:
    if dtype.kind == "V" or (dtype.kind in "biuf" and dtype.itemsize <= 4):  # V: bfloat16 and its kin
        return
    hint = {"f": "float32", "i": "int32", "u": "uint32"}.get(dtype.kind)
    raise EngineError(
        f"`{name}` is {dtype}, which the device does not compute with"
        + (f": make it .astype(np.{hint}) in the task's prepare" if hint else ": use numbers")
    )


class Window:
    """The rows of one submit, and their results as they come in.

    Invariants: a row's results are written once, by the batch that holds it; `future` is settled exactly once.
    """

    def __init__(self, examples: Sequence[Example], batches: int):
        self.examples = examples
        self.future: Future[dict[str, np.ndarray]] = Future()
        self.future.set_running_or_notify_cancel()  # it cannot be cancelled: its batches may be on the device
        self._lengths = [example.length for example in examples]
        self._left = batches
        self._settled = False
        self._lock = threading.Lock()
        self._outputs: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.examples)

    def tokens(self, rows: Sequence[int]) -> int:
        return sum(self._lengths[row] for row in rows)

    def scatter(self, rows: Sequence[int], outputs: Mapping[str, np.ndarray], by_length: frozenset[str]) -> None:
        """Put `outputs` ([len(rows), ...] each) where they belong; beyond a row's own length there are zeros."""
        for name, values in outputs.items():
            target = self._target(name, values, name in by_length)
            if name not in by_length:
                target[list(rows)] = values
                continue
            for row, value in zip(rows, values, strict=True):
                target[row, : self._lengths[row]] = value[: self._lengths[row]]

    def batch_done(self) -> bool:
        """One batch less to wait for; True when it was the last, and the future has its result."""
        with self._lock:
            self._left -= 1
            done = self._left == 0 and not self._settled
            self._settled |= done
        if done:
            self.future.set_result(self._outputs)
        return done

    def fail(self, error: Exception) -> None:
        """The future's result is `error`, unless it has one already."""
        with self._lock:
            first, self._settled = not self._settled, True
        if first:
            self.future.set_exception(error)

    def _target(self, name: str, values: np.ndarray, by_length: bool) -> np.ndarray:
        with self._lock:
            if name not in self._outputs:
                rest = (max(self._lengths), *values.shape[2:]) if by_length else values.shape[1:]
                self._outputs[name] = np.zeros((len(self), *rest), values.dtype)
            return self._outputs[name]


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows that one device gets in one step."""

    window: Window
    rows: tuple[int, ...]


def assemble(shards: Sequence[Shard], signature: Signature, bucket: Bucket, devices: int) -> dict[str, np.ndarray]:
    """The inputs of a step: shard s fills rows s * bucket.rows and on, all else is zeros."""
    shapes = signature.shapes(bucket, devices)
    inputs = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}
    for s, shard in enumerate(shards):
        for at, row in enumerate(shard.rows, start=s * bucket.rows):
            example = shard.window.examples[row]
            for name, field in signature.fields.items():
                if field.by_length:
                    inputs[name][at, : example.length] = example.arrays[name]
                else:
                    inputs[name][at] = example.arrays[name]
            if signature.has_length:
                inputs[LENGTHS][at] = example.length
    return inputs
