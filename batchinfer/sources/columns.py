"""Columnar files: Parquet by row groups, Arrow IPC (Feather 2) by record batches. Only the columns asked for are read.

Values are what pyarrow makes of them in Python. Memory is bounded by a few MiB of a row group, or by a record batch.
Knows nothing of keys (see records.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchinfer.errors import SourceError
from batchinfer.job.source_spec import ArrowSource as ArrowSpec
from batchinfer.job.source_spec import ParquetSource as ParquetSpec
from batchinfer.record import Record, Rejection
from batchinfer.sources.base import Partitions, Slice
from batchinfer.sources.records import (
    Chunk,
    Fields,
    Unreadable,
    check_columns,
    columns_to_read,
    grouped,
    projected_schema,
    record_maker,
    whole_file,
)
from batchinfer.storage.base import Entry, Storage

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 1024
_READ_BYTES = 1 << 20
_ARROW_MAGIC = b"ARROW1"
_FEATHER1_MAGIC = b"FEA1"


class ParquetSource:
    """A record per row; slices are whole row groups, their bytes those of the columns read, as stored."""

    def __init__(self, spec: ParquetSpec, storage: Storage):
        self._spec, self._storage = spec, storage

    def slices(self, entry: Entry, target_bytes: int, partitions: Partitions = ()) -> Iterator[Slice]:
        if entry.size_bytes == 0:
            return
        with _opened(self._storage, whole_file(entry, partitions), "Parquet", _parquet) as file:
            check_columns(entry.uri, file.schema_arrow.names, self._spec, partitions)
            leaves = _leaves(file, columns_to_read(self._spec, partitions))
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        sizes = [sum(group.column(leaf).total_compressed_size for leaf in leaves) for group in groups]
        chunks = (Chunk(i, i + 1, size, groups[i].num_rows) for i, size in enumerate(sizes))
        yield from grouped(entry, chunks, target_bytes, partitions)

    def fields(self, first: Slice) -> pa.Schema:
        with _opened(self._storage, first, "Parquet", _parquet) as file:
            check_columns(first.uri, file.schema_arrow.names, self._spec, first.partitions)
            return projected_schema(file.schema_arrow, self._spec, first.partitions)

    def read(self, piece: Slice) -> Iterator[Record | Rejection]:
        return islice(self._records(piece), piece.take)

    def _records(self, piece: Slice) -> Iterator[Record | Rejection]:
        names = columns_to_read(self._spec, piece.partitions)
        make, row = record_maker(piece, self._spec), piece.first_row
        with _opened(self._storage, piece, "Parquet", _parquet) as file:
            check_columns(piece.uri, file.schema_arrow.names, self._spec, piece.partitions)
            groups = range(piece.begin, piece.end or file.num_row_groups)
            leaves = _leaves(file, names)
            for group in groups:
                rows = _rows_at_once(file.metadata.row_group(group), leaves)
                for batch in file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False):
                    for fields in batch_rows(batch):
                        yield make(fields, row)
                        row += 1


def _parquet(stream: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(stream, buffer_size=_READ_BYTES, pre_buffer=False)


def _leaves(file: pq.ParquetFile, names: list[str] | None) -> list[int]:
    """Indices of the stored columns that belong to these top-level ones; None for all."""
    paths = [file.schema.column(i).path for i in range(len(file.schema))]
    if names is None:
        return list(range(len(paths)))
    wanted = tuple(f"{name}." for name in names)
    return [i for i, path in enumerate(paths) if f"{path}.".startswith(wanted)]


def _rows_at_once(group: pq.RowGroupMetaData, leaves: list[int]) -> int:
    size = sum(group.column(leaf).total_uncompressed_size for leaf in leaves)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * group.num_rows // max(size, 1)))


class ArrowSource:
    """A record per row; slices are whole record batches. A file in the stream format is one slice, rows not counted."""

    def __init__(self, spec: ArrowSpec, storage: Storage):
        self._spec, self._storage = spec, storage

    def slices(self, entry: Entry, target_bytes: int, partitions: Partitions = ()) -> Iterator[Slice]:
        if entry.size_bytes == 0:
            return
        whole = whole_file(entry, partitions)
        with _opened(self._storage, whole, "Arrow", _arrow) as file:
            check_columns(entry.uri, file.schema.names, self._spec, partitions)
            streamed = isinstance(file, pa.RecordBatchStreamReader)
        if streamed:
            yield whole
        else:
            yield from grouped(entry, self._chunks(whole), target_bytes, partitions)

    def _chunks(self, whole: Slice) -> list[Chunk]:
        """Row counts need one column of each batch to be read; the file's bytes are shared out by rows."""
        with _opened(self._storage, whole, "Arrow", lambda stream: _arrow(stream, [0])) as file:
            rows = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
        total = max(sum(rows), 1)
        return [Chunk(i, i + 1, whole.size_bytes * count // total, count) for i, count in enumerate(rows)]

    def fields(self, first: Slice) -> pa.Schema:
        with _opened(self._storage, first, "Arrow", _arrow) as file:
            check_columns(first.uri, file.schema.names, self._spec, first.partitions)
            return projected_schema(file.schema, self._spec, first.partitions)

    def read(self, piece: Slice) -> Iterator[Record | Rejection]:
        return islice(self._records(piece), piece.take)

    def _records(self, piece: Slice) -> Iterator[Record | Rejection]:
        make, row = record_maker(piece, self._spec), piece.first_row
        for batch in self._batches(piece):
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                for fields in batch_rows(batch.slice(start, _BATCH_ROWS)):
                    yield make(fields, row)
                    row += 1

    def _batches(self, piece: Slice) -> Iterator[pa.RecordBatch]:
        with _opened(self._storage, piece, "Arrow", _arrow) as file:
            names = file.schema.names
            check_columns(piece.uri, names, self._spec, piece.partitions)
            streamed = isinstance(file, pa.RecordBatchStreamReader)
        wanted = columns_to_read(self._spec, piece.partitions)
        included = None if wanted is None else [names.index(name) for name in wanted] or [0]  # to pyarrow [] means all
        with _opened(self._storage, piece, "Arrow", lambda stream: _arrow(stream, included)) as file:
            indices = () if streamed else range(piece.begin, piece.end or file.num_record_batches)
            for batch in file if streamed else map(file.get_batch, indices):
                _validate(batch)
                yield batch if wanted is None else batch.select(wanted)


def _validate(batch: pa.RecordBatch) -> None:
    """Raises ArrowInvalid for offsets and lengths that point outside the data: following them ends the process.

    Texts are checked as bytes, so that one which is not UTF-8 costs only its row.
    """
    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for column in batch.columns:
        kind = as_bytes.get(column.type)
        (column if kind is None else column.view(kind)).validate(full=True)


def _arrow(stream: BinaryIO, included: list[int] | None = None) -> Any:
    """A RecordBatchFileReader or RecordBatchStreamReader, as the file is, of those columns (None for all)."""
    magic = stream.read(len(_ARROW_MAGIC))
    stream.seek(0)
    if magic.startswith(_FEATHER1_MAGIC):
        raise pa.ArrowInvalid("Feather version 1; write it anew as version 2")
    options = pa.ipc.IpcReadOptions(included_fields=included)
    if magic == _ARROW_MAGIC:
        return pa.ipc.open_file(stream, options=options)
    return pa.ipc.open_stream(stream, options=options)


# --- both -----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(storage: Storage, piece: Slice, kind: str, reader: Callable[[BinaryIO], Any]) -> Iterator[Any]:
    """The reader of a file; what pyarrow raises, then or inside the block, becomes a SourceError."""
    with storage.open_read(piece.uri, piece.version) as stream:
        try:
            yield reader(stream)
        except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
            what = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise SourceError(piece.uri, f"not a readable {kind} file ({what}); write or copy it again") from error


def batch_rows(batch: pa.RecordBatch) -> Iterator[Fields | Unreadable]:
    """The rows of a batch; one with a value that Python cannot hold (invalid UTF-8, a date past 9999) is Unreadable."""
    names = batch.schema.names
    if not names:
        yield from ({} for _ in range(batch.num_rows))
        return
    columns, flawed = [], False
    for column in batch.columns:
        try:
            columns.append(column.to_pylist())
        except (ValueError, OverflowError):
            columns.append([_cell(scalar) for scalar in column])
            flawed = True
    for values in zip(*columns, strict=True):
        fields = dict(zip(names, values, strict=True))
        yield _flawed_row(fields) if flawed else fields


def _cell(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        data = error.object.decode(errors="replace")
        return Unreadable("bad_utf8", f"not UTF-8 at byte {error.start} ({error.reason})", data)
    except (ValueError, OverflowError) as error:
        return Unreadable("bad_value", str(error), None)


def _flawed_row(fields: Fields) -> Fields | Unreadable:
    faults = {name: value for name, value in fields.items() if isinstance(value, Unreadable)}
    for name, fault in faults.items():
        readable = {n: v.record if isinstance(v, Unreadable) else v for n, v in fields.items()}
        return Unreadable(fault.error, f'column "{name}": {fault.message}', readable)
    return fields
