"""Predictions as JSON lines: one object a line, columns in schema order.

Numbers are printed with the digits their own width needs (a float32 0.1 is `0.1`), bytes as base64, dates, times
and decimals as text; NaN and infinities, which JSON does not have, as null. Knows nothing of files.
"""

from __future__ import annotations

import base64
import functools
import itertools
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import types

from batchinfer.job import spec
from batchinfer.sinks.base import PartWriter
from batchinfer.sinks.columns import (
    is_list,
    is_text_like,
    list_items,
    plain_schema,
    raw_numbers,
    repeated_columns,
    texts,
)
from batchinfer.sinks.packed import SUFFIX, PackedStream, Packing

Values = Sequence[Any] | np.ndarray
_ROW = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


class JsonlSink:
    """The sink of `format: jsonl`."""

    def __init__(self, wanted: spec.JsonlSink):
        self._compression: Packing = wanted.compression
        self.suffix = ".jsonl" + SUFFIX[wanted.compression]

    def open_part(self, stream: BinaryIO, schema: pa.Schema) -> PartWriter:
        return JsonlPart(PackedStream(stream, self._compression), schema)

    def check(self, schema: pa.Schema) -> list[str]:
        # Asking the converter itself, with no rows, keeps one list of types instead of two.
        faults = [fault for field in plain_schema(schema) if (fault := _fault(field))]
        return repeated_columns(schema) + faults


class JsonlPart:
    """One file of JSON lines."""

    def __init__(self, stream: PackedStream, schema: pa.Schema):
        self._stream = stream
        self._schema = plain_schema(schema)

    def write(self, table: pa.Table) -> None:
        names = self._schema.names
        for batch in table.cast(self._schema).to_batches():
            columns = [row_values(column) for column in batch.columns]
            for row in zip(*columns, strict=True):
                self._stream.write(orjson.dumps(dict(zip(names, row, strict=True)), option=_ROW))

    def close(self) -> None:
        self._stream.close()


class _NotJson(TypeError):
    """A column type that has no JSON form here."""


def _fault(field: pa.Field) -> str | None:
    try:
        row_values(pa.array([], field.type))
    except _NotJson as error:
        return f"column {field.name}: {error} cannot be written as JSON lines; leave it out, or use parquet"
    return None


def row_values(array: pa.Array) -> Values:
    """One JSON-ready value per row; numbers without nulls as a numpy view, so that a vector is never unpacked."""
    kind = array.type
    if types.is_floating(kind) or types.is_integer(kind):
        return _numbers(array)
    if is_list(kind) or types.is_map(kind):
        return _with_nulls(array, _lists(array))
    if types.is_struct(kind):
        return _with_nulls(array, _objects(array))
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [None if value is None else base64.b64encode(value).decode("ascii") for value in array.to_pylist()]
    if is_text_like(kind):
        return texts(array)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind) or types.is_null(kind):
        return array.to_pylist()
    raise _NotJson(str(kind))


def _with_nulls(array: pa.Array, values: Values) -> Values:
    if not array.null_count:
        return values
    return [value if valid else None for value, valid in zip(values, array.is_valid().to_pylist(), strict=True)]


def _numbers(array: pa.Array) -> Values:
    numbers = raw_numbers(array)
    if types.is_float16(array.type):
        numbers = _shortest_halves()[numbers.view(np.uint16)]
    return _with_nulls(array, numbers)


def _lists(array: pa.Array) -> Sequence[Any]:
    items, at = list_items(array)
    values = row_values(items)
    return [values[begin:end] for begin, end in itertools.pairwise(at)]


def _objects(array: pa.Array) -> Sequence[Any]:
    names = [field.name for field in array.type]
    columns = [row_values(column) for column in array.flatten()]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@functools.cache
def _shortest_halves() -> np.ndarray:
    """float64[65536]: for the bits of each float16 the double that prints with the fewest digits naming that half.

    Whole numbers keep all of theirs: 65504 stays 65504, where the fewest digits would be 65500.
    """
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):  # among the bits are NaNs that signal
        exact = halves.astype(np.float64)
        whole = exact == np.rint(exact)
    return np.where(whole, exact, np.array([float(str(half)) for half in halves]))
