"""Avro object container files, read block by block with fastavro.

Slices are byte ranges of whole blocks. Logical types come as Python values (dates, decimals), bytes as bytes.
Knows nothing of keys (see records.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO

import fastavro
import pyarrow as pa
from fastavro.schema import SchemaParseException, UnknownType

from batchinfer.errors import SourceError
from batchinfer.job.source_spec import AvroSource as AvroSpec
from batchinfer.record import Record, Rejection
from batchinfer.sources.base import Partitions, Slice
from batchinfer.sources.records import (
    SCHEMA_ROWS,
    Chunk,
    Fields,
    Unreadable,
    check_columns,
    columns_to_read,
    grouped,
    inferred_schema,
    record_maker,
    whole_file,
)
from batchinfer.storage.base import Entry, Storage

# What decoding arbitrary bytes as Avro was seen to raise.
_BROKEN = (
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    SchemaParseException,
    TypeError,
    UnknownType,
    ValueError,
    zlib.error,
)


class AvroSource:
    """A record per Avro record; the file's schema must be a record."""

    def __init__(self, spec: AvroSpec, storage: Storage):
        self._spec, self._storage = spec, storage

    def slices(self, entry: Entry, target_bytes: int, partitions: Partitions = ()) -> Iterator[Slice]:
        if entry.size_bytes:
            yield from grouped(entry, self._chunks(whole_file(entry, partitions)), target_bytes, partitions)

    def _chunks(self, whole: Slice) -> Iterator[Chunk]:
        with self._opened(whole) as (_, blocks):
            for block in blocks:
                yield Chunk(block.offset, block.offset + block.size, block.size, block.num_records)

    def fields(self, first: Slice) -> pa.Schema:
        return inferred_schema(self.read(replace(first, take=SCHEMA_ROWS)))

    def read(self, piece: Slice) -> Iterator[Record | Rejection]:
        return islice(self._records(piece), piece.take)

    def _records(self, piece: Slice) -> Iterator[Record | Rejection]:
        make, row = record_maker(piece, self._spec), piece.first_row
        wanted = columns_to_read(self._spec, piece.partitions)
        with self._opened(piece) as (stream, blocks):
            stream.seek(piece.begin)
            for block in blocks:
                for fields in block:
                    yield make(_readable(fields, wanted), row)
                    row += 1
                if stream.tell() == piece.end:
                    return
            if piece.end is not None:
                raise SourceError(piece.uri, "ends before it did when it was planned: plan anew")

    @contextmanager
    def _opened(self, piece: Slice) -> Iterator[tuple[BinaryIO, Any]]:
        """The file past its header, and fastavro's iterator over the blocks from wherever the stream stands."""
        with self._storage.open_read(piece.uri, piece.version) as stream:
            try:
                # Lone surrogates stand for what is not UTF-8, so that one bad text does not cost the whole block.
                blocks = fastavro.block_reader(stream, handle_unicode_errors="surrogateescape")
                check_columns(piece.uri, _column_names(blocks.writer_schema, piece.uri), self._spec, piece.partitions)
                yield stream, blocks
            except _BROKEN as error:
                what = str(error) or type(error).__name__
                raise SourceError(piece.uri, f"not a readable Avro file ({what}); write or copy it again") from error


def _column_names(schema: Any, uri: str) -> list[str]:
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise SourceError(uri, "its Avro schema is not a record, so its values have no field names")
    return [field["name"] for field in schema["fields"]]


def _readable(fields: Fields, wanted: list[str] | None) -> Fields | Unreadable:
    if wanted is not None:
        fields = {name: fields[name] for name in wanted}
    for name, value in fields.items():
        if _has_bad_text(value):
            return Unreadable("bad_utf8", f'field "{name}" is not UTF-8', _replaced(fields))
    return fields


def _has_bad_text(value: Any) -> bool:
    match value:
        case str():
            return not value.isascii() and any("\udc80" <= char <= "\udcff" for char in value)
        case dict():
            return any(_has_bad_text(inner) for inner in value.values())
        case list() | tuple():
            return any(_has_bad_text(inner) for inner in value)
        case _:
            return False


def _replaced(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="surrogateescape").decode(errors="replace")
        case dict():
            return {name: _replaced(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_replaced(inner) for inner in value]
        case _:
            return value
