"""Arrow columns as the row formats want them: plain types, numpy views, lists cut into rows, text for dates.

Knows nothing of any file format.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from pyarrow import types

_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}  # Arrow's names where numpy's differ


def repeated_columns(schema: pa.Schema) -> list[str]:
    """One line for each name that stands in the schema more than once."""
    counts = Counter(schema.names)
    advice = "leave it out of sink.include, or rename it in the input"
    twice = [(name, count) for name, count in counts.items() if count > 1]
    return [f"column {name}: stands {count} times in the output; {advice}" for name, count in twice]


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without metadata, its dictionary columns replaced by their values.

    How a column is cut into dictionaries depends on the tables, and the bytes of a part must not.
    """
    return pa.schema([_plain(field) for field in schema])


def _plain(field: pa.Field) -> pa.Field:
    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    return pa.field(field.name, kind, field.nullable)


def is_text_like(kind: pa.DataType) -> bool:
    """Types that are written as text where a format has no type for them: dates, times, decimals."""
    return types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind) or types.is_decimal(kind)


def texts(array: pa.Array) -> list[str | None]:
    """Dates, times and decimals as text, exactly; timestamps as ISO 8601, those with a zone in UTC ("...Z")."""
    kind = array.type
    if types.is_timestamp(kind) and kind.tz is not None:
        array = array.cast(pa.timestamp(kind.unit, "UTC"))
    return [text and text.replace(" ", "T") for text in array.cast(pa.string()).to_pylist()]


def raw_numbers(array: pa.Array) -> np.ndarray:
    """A view [N] of a column of integers or floats; what stands under a null is anything."""
    dtype = np.dtype(_FLOATS.get(str(array.type), str(array.type)))
    if len(array) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, count=len(array), offset=array.offset * dtype.itemsize)


def is_list(kind: pa.DataType) -> bool:
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def list_items(array: pa.Array) -> tuple[pa.Array, list[int]]:
    """All items of a list column one after another, and N + 1 positions: row i holds items[at[i]:at[i + 1]].

    What stands under a null row is anything.
    """
    if types.is_fixed_size_list(array.type):
        size = array.type.list_size
        items = array.values.slice(array.offset * size, len(array) * size)
        return items, [row * size for row in range(len(array) + 1)]
    offsets = array.offsets.to_pylist()
    first, last = offsets[0], offsets[-1]
    return array.values.slice(first, last - first), [offset - first for offset in offsets]
