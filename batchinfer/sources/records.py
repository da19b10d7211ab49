"""What all sources do with a row once it is read: check the names, find the key, pick the fields, count into slices.

Knows nothing of any format, nor of how bytes are read.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from batchinfer.errors import SourceError
from batchinfer.job.source_spec import SourceBase
from batchinfer.record import Record, Rejection
from batchinfer.sources.base import Partitions, Slice
from batchinfer.storage.base import Entry

SCHEMA_ROWS = 1000
"""Records looked at to find the fields of a file that does not describe itself."""

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a row's fields should be: a machine word, words for people, and what could be read."""

    error: str
    message: str
    record: Any


class Chunk(NamedTuple):
    """The smallest piece a slice can be made of; `begin` and `end` as in Slice."""

    begin: int
    end: int
    size_bytes: int
    rows: int


Maker = Callable[[Fields | Unreadable, int], Record | Rejection]


def record_maker(piece: Slice, spec: SourceBase) -> Maker:
    """A function from a row's fields and index to its record, or to the rejection of one without a usable key.

    The record's fields are those of the row and the path, or with `columns` just those, in that order.
    """
    uri, extra, key, columns = piece.uri, dict(piece.partitions), spec.key, spec.columns

    def make(fields: Fields | Unreadable, row: int) -> Record | Rejection:
        if isinstance(fields, Unreadable):
            name = f"{uri}:{row}" if key is None else None
            return Rejection(name, uri, row, "read", fields.error, fields.message, fields.record)
        if extra:
            _check_partitions(uri, fields.keys() & extra.keys(), extra)
            fields = fields | extra
        value = f"{uri}:{row}" if key is None else fields.get(key)
        if type(value) is not str and type(value) is not int:
            return _bad_key(fields, str(key), uri, row)
        if columns is not None:
            fields = {name: fields[name] for name in columns if name in fields}
        return Record(value, fields, uri, row)

    return make


def _bad_key(fields: Fields, key: str, uri: str, row: int) -> Rejection:
    if key not in fields:
        error, message = "missing_key", f'no field "{key}" (source.key); the row has {_listed(fields)}'
    elif fields[key] is None:
        error, message = "null_key", f'field "{key}" (source.key) is null'
    else:
        kind = type(fields[key]).__name__
        error, message = "bad_key", f'field "{key}" (source.key) is a {kind}; a key is a text or a whole number'
    return Rejection(None, uri, row, "read", error, message, fields)


def columns_to_read(spec: SourceBase, partitions: Partitions) -> list[str] | None:
    """The file's own columns that must be read, the key among them; None for all."""
    if spec.columns is None:
        return None
    names = [*spec.columns] if spec.key is None else [*spec.columns, spec.key]
    return [name for name in dict.fromkeys(names) if name not in dict(partitions)]


def check_columns(uri: str, names: Sequence[str], spec: SourceBase, partitions: Partitions) -> None:
    """Raises SourceError if a self-describing file cannot give the columns asked for, or names one twice."""
    if not names:
        raise SourceError(uri, "has no columns")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SourceError(uri, f"two columns have the same name, {_listed(twice)}; rename one")
    _check_partitions(uri, set(names) & {name for name, _ in partitions}, dict(partitions))
    asked = dict.fromkeys([*(spec.columns or ()), *((spec.key,) if spec.key is not None else ())])
    known = [*names, *(name for name, _ in partitions)]
    for name in asked:
        if name not in known:
            asker = "source.key names" if name == spec.key else "the job reads"
            hint = did_you_mean(name, known)
            raise SourceError(uri, f'has no column "{name}", which {asker}{hint}; it has {_listed(known)}')


def _check_partitions(uri: str, clashes: set[str], partitions: dict[str, str]) -> None:
    for name in sorted(clashes):
        raise SourceError(
            uri,
            f'"{name}" is a field of the rows and also in the path ({name}={partitions[name]}); '
            "rename one, or let source.path begin below that directory",
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' (did you mean "x"?)' or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(f'"{name}"' for name in names[:20])
    return f"{shown}, and {len(names) - 20} more" if len(names) > 20 else shown or "none"


def grouped(entry: Entry, chunks: Iterable[Chunk], target_bytes: int, partitions: Partitions) -> Iterator[Slice]:
    """Slices of neighbouring chunks, each closed as soon as it has `target_bytes`; none is without rows."""
    begin, size, rows, first_row = None, 0, 0, 0
    end = 0
    for chunk in chunks:
        begin = chunk.begin if begin is None else begin
        end, size, rows = chunk.end, size + chunk.size_bytes, rows + chunk.rows
        if size >= target_bytes and rows:
            yield Slice(entry.uri, entry.version, begin, end, size, first_row, rows, partitions=partitions)
            begin, size, rows, first_row = None, 0, 0, first_row + rows
    if begin is not None and rows:
        yield Slice(entry.uri, entry.version, begin, end, size, first_row, rows, partitions=partitions)


def whole_file(entry: Entry, partitions: Partitions) -> Slice:
    """The one slice of a file that can only be read from its beginning, its rows not counted."""
    return Slice(entry.uri, entry.version, 0, None, entry.size_bytes, 0, None, partitions=partitions)


def inferred_schema(rows: Iterable[Record | Rejection]) -> pa.Schema:
    """Fields and types of the first records: string for mixed types and integers beyond 64 bits, null if all are."""
    seen: dict[str, list[Any]] = {}
    for row in islice(rows, SCHEMA_ROWS):
        if isinstance(row, Record):
            for name, value in row.fields.items():
                seen.setdefault(name, []).append(value)
    return pa.schema([(name, _type_of(values)) for name, values in seen.items()])


def _type_of(values: list[Any]) -> pa.DataType:
    try:
        return pa.array(values).type  # infer_type looks less closely: to it [1, "x"] is int64
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.string()


def projected_schema(schema: pa.Schema, spec: SourceBase, partitions: Partitions) -> pa.Schema:
    """What records of a file with this schema hold: its columns and the path's, or those the job asks for."""
    types = {field.name: _value_type(field.type) for field in schema} | {name: pa.string() for name, _ in partitions}
    return pa.schema([(name, types[name]) for name in (types if spec.columns is None else spec.columns)])


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
