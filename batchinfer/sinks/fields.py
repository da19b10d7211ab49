"""The key and the passed-through fields of records as typed columns. Knows nothing of files or formats.

The types were found at planning, from the input's schema or its first records. A value that does not fit is the
record's fault and rejects it; nothing is converted on the quiet, and nothing is left out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from batchinfer.record import Record, Rejection, json_safe, reject
from batchinfer.sinks.columns import is_list

_MISFITS = (pa.ArrowException, TypeError, OverflowError, ValueError)


def with_fields(table: pa.Table, records: list[Record], fields: pa.Schema) -> tuple[pa.Table, list[Rejection]]:
    """`table` with the columns of `fields` in front, the key's first; a record that does not fit is left out and
    rejected."""
    columns: list[pa.Array] = []
    misfits: dict[int, Rejection] = {}
    for i, column in enumerate(fields):
        values = [record.fields.get(column.name) for record in records] if i else _keys(records, column.type)
        columns.append(_column(values, column, records, misfits))
    table = pa.Table.from_arrays([*columns, *table.columns], schema=pa.schema([*fields, *table.schema]))
    if misfits:
        table = table.take(np.array([i for i in range(len(records)) if i not in misfits], np.int64))
    return table, list(misfits.values())


def _keys(records: list[Record], kind: pa.DataType) -> Sequence[str | int]:
    """Where some keys are numbers and some are text, all are written as text."""
    keys = [record.key for record in records]
    return [str(key) for key in keys] if types.is_string(kind) else keys


def _column(values: Sequence[Any], column: pa.Field, records: list[Record], misfits: dict[int, Rejection]) -> pa.Array:
    try:
        if all(_keeps(value, column.type) for value in values):
            return pa.array(values, column.type)
    except _MISFITS:
        pass  # which of them it was is found one by one
    faults = {i: fault for i, value in enumerate(values) if (fault := _misfit(value, column.type))}
    for i, fault in faults.items():
        message = f'field "{column.name}" does not fit its output type {column.type}: {fault}'
        misfits[i] = reject(records[i], "finish", "wrong_type", message)
    return pa.array([None if i in faults else value for i, value in enumerate(values)], column.type)


def _misfit(value: Any, kind: pa.DataType) -> str:
    """Why the value is not of the type, "" if it is."""
    if not _keeps(value, kind):
        return f"it is {json_safe(value)!r:.200}"
    try:
        pa.scalar(value, kind)
    except _MISFITS as error:
        return str(error)
    return ""


def _keeps(value: Any, kind: pa.DataType) -> bool:
    """False for what pyarrow would take and change: 2.5 into 2, true into 1.0, text into a list of letters, an object
    without the names it does not know."""
    if value is None:
        return True
    if is_list(kind):
        return isinstance(value, Sequence) and not isinstance(value, str | bytes) and _items_keep(value, kind)
    if types.is_struct(kind):
        return isinstance(value, Mapping) and _entries_keep(value, kind)
    match value:
        case bool():
            return not types.is_floating(kind)
        case float():
            return not types.is_integer(kind) or value.is_integer()
        case _:
            return True


def _items_keep(values: Sequence[Any], kind: pa.DataType) -> bool:
    if types.is_floating(kind.value_type):  # vectors, and long
        return bool not in set(map(type, values))
    return all(_keeps(item, kind.value_type) for item in values)


def _entries_keep(value: Mapping[str, Any], kind: pa.DataType) -> bool:
    known = {field.name: field.type for field in kind}
    return all(name in known and _keeps(item, known[name]) for name, item in value.items())
