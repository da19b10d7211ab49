"""Predictions as Parquet: typed columns, row groups of one size, every writer option that changes bytes pinned.

What is left to the library is its own version, which it writes into the footer (`created_by`).
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from batchinfer.errors import BatchInferError
from batchinfer.job import spec
from batchinfer.sinks.base import PartWriter
from batchinfer.sinks.columns import plain_schema, repeated_columns

ZSTD_LEVEL = 3
"""Embeddings shrink by 8 % at any level, in the same time; this one is for the texts beside them."""

PINNED: dict[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "data_page_size": 1 << 20,
    "dictionary_pagesize_limit": 1 << 20,
    "write_batch_size": 1024,
    "max_rows_per_page": 20_000,
    "use_compliant_nested_type": True,
    "use_byte_stream_split": False,
    "store_schema": True,  # keeps fixed_size_list and time zones for readers that know Arrow
}


class ParquetSink:
    """The sink of `format: parquet`."""

    suffix = ".parquet"

    def __init__(self, wanted: spec.ParquetSink):
        self._wanted = wanted

    def open_part(self, stream: BinaryIO, schema: pa.Schema) -> PartWriter:
        return ParquetPart(stream, schema, self._wanted)

    def check(self, schema: pa.Schema) -> list[str]:
        # The library itself is the only complete list of what it can write.
        faults = [fault for field in plain_schema(schema) if (fault := _fault(field, self._wanted))]
        return repeated_columns(schema) + faults


class ParquetPart:
    """One Parquet file. Holds at most the rows of one row group and the table being written."""

    def __init__(self, stream: BinaryIO, schema: pa.Schema, wanted: spec.ParquetSink):
        self._schema = plain_schema(schema)
        self._group_rows = wanted.row_group_rows
        self._writer = pq.ParquetWriter(stream, self._schema, **_options(self._schema, wanted))
        self._pending: list[pa.Table] = []
        self._pending_rows = 0

    def write(self, table: pa.Table) -> None:
        _refuse_null_vectors(table)
        self._pending.append(table.cast(self._schema))
        self._pending_rows += table.num_rows
        while self._pending_rows >= self._group_rows:
            self._write_group(self._group_rows)

    def close(self) -> None:
        if self._pending_rows:
            self._write_group(self._pending_rows)
        self._writer.close()

    def _write_group(self, rows: int) -> None:
        pending = pa.concat_tables(self._pending)
        self._writer.write_table(pending.slice(0, rows).combine_chunks(), row_group_size=rows)
        self._pending = [pending.slice(rows)]
        self._pending_rows -= rows


def _refuse_null_vectors(table: pa.Table) -> None:
    # Valid Parquet, but readers built on Arrow up to 25 fail on the whole file (apache/arrow#35692).
    for field, column in zip(table.schema, table.columns, strict=True):
        if types.is_fixed_size_list(field.type) and column.null_count:
            raise BatchInferError(
                f"column {field.name}: null in a column of {field.type}, which Parquet readers cannot read back; "
                "reject such rows, or declare the column as a list without a fixed size"
            )


def _options(schema: pa.Schema, wanted: spec.ParquetSink) -> dict[str, Any]:
    # Dictionaries and minima say nothing about vectors and cost time and bytes.
    flat = [field.name for field in schema if not types.is_nested(field.type)]
    level = ZSTD_LEVEL if wanted.compression == "zstd" else None
    chosen = {"compression": wanted.compression, "compression_level": level}
    return PINNED | chosen | {"use_dictionary": flat or False, "write_statistics": flat or False}


def _fault(field: pa.Field, wanted: spec.ParquetSink) -> str | None:
    try:
        ParquetPart(io.BytesIO(), pa.schema([field]), wanted).close()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        return f"column {field.name}: {field.type} cannot be written as parquet ({error})"
    return None
