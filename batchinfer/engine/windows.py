"""The host's side of a batch: examples into padded arrays, result arrays back to the rows they belong to.

A window is what one `submit` brings: its rows are sorted into batches together and come back together.
Numpy only; knows nothing of devices or threads but for one lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from batchinfer.engine.buckets import Bucket, slots_in
from batchinfer.engine.sharing import Row
from batchinfer.errors import EngineError

LENGTHS = "lengths"
"""The input the engine adds where rows have lengths: int32[B], 0 for rows that are padding. Where examples share rows
int32[B, S], 0 for empty slots, and three more:

`segments: int32[B, L]`: which slot (from 1) a token belongs to, 0 for padding; `positions: int32[B, L]`: its place in
its example, from 0; `starts: int32[B, S]`: where the example of a slot begins.
"""
SEGMENTS, POSITIONS, STARTS = "segments", "positions", "starts"
ADDED = frozenset({LENGTHS, SEGMENTS, POSITIONS, STARTS})

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
    shared: bool = False

    @classmethod
    def of(cls, example: Example, shared: bool = False) -> Signature:
        """`shared`: rows hold several examples. Raises EngineError for arrays that no device takes as they are."""
        fields = {}
        for name, array in example.arrays.items():
            _check_dtype(name, array.dtype)
            by_length = example.length > 0 and array.ndim > 0
            fields[name] = Field(array.dtype, by_length, array.shape[1:] if by_length else array.shape)
        taken = ADDED if shared else {LENGTHS}
        if not fields or not taken.isdisjoint(fields):
            called = ", ".join(f"`{name}`" for name in sorted(taken))
            raise EngineError(f"an example needs at least one array, none called {called}; it has {sorted(fields)}")
        if shared and not all(field.by_length for field in fields.values()):
            raise EngineError(f"examples that share rows have arrays by length only; these have {sorted(fields)}")
        return cls(fields, example.length > 0, shared)

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
        rows, kind = bucket.rows * devices, np.dtype(np.int32)
        shapes = {name: ((rows, *field.shape(bucket.length)), field.dtype) for name, field in self.fields.items()}
        if self.shared:
            by_token, by_slot = (rows, bucket.length), (rows, slots_in(bucket.length))
            shapes |= {SEGMENTS: (by_token, kind), POSITIONS: (by_token, kind)}
            shapes |= {STARTS: (by_slot, kind), LENGTHS: (by_slot, kind)}
        elif self.has_length:
            shapes[LENGTHS] = ((rows,), kind)
        return shapes


def _check_dtype(name: str, dtype: np.dtype) -> None:
    if dtype.kind == "V" or (dtype.kind in "biuf" and dtype.itemsize <= 4):  # V: bfloat16 and its kin
        return
    hint = {"f": "float32", "i": "int32", "u": "uint32"}.get(dtype.kind)
    raise EngineError(
        f"`{name}` is {dtype}, which the device does not compute with"
        + (f": make it .astype(np.{hint}) in the task's prepare" if hint else ": use numbers")
    )


class Window:
    """The examples of one submit, the rows they stand in, and their results as they come in.

    Invariants: an example's results are written once, by the batch that holds its row; `future` is settled once.
    """

    def __init__(self, examples: Sequence[Example], rows: Sequence[Row], batches: int):
        self.examples = examples
        self._rows = rows
        self.future: Future[dict[str, np.ndarray]] = Future()
        self.future.set_running_or_notify_cancel()  # it cannot be cancelled: its batches may be on the device
        self._lengths = [example.length for example in examples]
        self._left = batches
        self._settled = False
        self._lock = threading.Lock()
        self._outputs: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.examples)

    def examples_in(self, rows: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """(place of the row among `rows`, slot, example) for every example in these rows."""
        for at, row in enumerate(rows):
            for slot, index in enumerate(self._rows[row]):
                yield at, slot, index

    def count(self, rows: Sequence[int]) -> int:
        """Examples in these rows."""
        return sum(len(self._rows[row]) for row in rows)

    def tokens(self, rows: Sequence[int]) -> int:
        return sum(self._lengths[index] for _, _, index in self.examples_in(rows))

    def scatter(self, rows: Sequence[int], outputs: Mapping[str, np.ndarray], program_outputs: Outputs) -> None:
        """Put `outputs` ([len(rows), ...] each) where they belong; beyond an example's own length there are zeros."""
        ats, slots, indices = (list(column) for column in zip(*self.examples_in(rows), strict=True))
        for name, values in outputs.items():
            by_length = name in program_outputs.by_length
            target = self._target(name, values[:, 0] if program_outputs.by_slot else values, by_length)
            if by_length:
                for at, index in zip(ats, indices, strict=True):
                    target[index, : self._lengths[index]] = values[at, : self._lengths[index]]
            else:
                target[indices] = values[ats, slots] if program_outputs.by_slot else values[ats]

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
class Outputs:
    """What axis 1 of outputs is: `by_length` names those where it is the token; `by_slot`: it is the slot in all."""

    by_length: frozenset[str] = frozenset()
    by_slot: bool = False


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
        start = 0
        for at, slot, index in shard.window.examples_in(shard.rows):
            start = start if slot else 0
            _place(shard.window.examples[index], signature, inputs, s * bucket.rows + at, slot, start)
            start += shard.window.examples[index].length
    return inputs


def _place(
    example: Example, signature: Signature, inputs: Mapping[str, np.ndarray], row: int, slot: int, start: int
) -> None:
    """One example into its row, from token `start` on."""
    end = start + example.length
    for name, field in signature.fields.items():
        if field.by_length:
            inputs[name][row, start:end] = example.arrays[name]
        else:
            inputs[name][row] = example.arrays[name]
    if signature.shared:
        inputs[SEGMENTS][row, start:end] = slot + 1
        inputs[POSITIONS][row, start:end] = np.arange(example.length)
        inputs[STARTS][row, slot] = start
        inputs[LENGTHS][row, slot] = example.length
    elif signature.has_length:
        inputs[LENGTHS][row] = example.length
