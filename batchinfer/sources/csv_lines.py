"""CSV and TSV as Python's csv module reads them: quoted fields may hold line ends, empty lines are no records.

Every value is a text; an empty field is an empty text. Slices begin and end on record boundaries, found by running
the parser that also reads, so a line end inside quotes is never taken for one. `row` counts records, not lines; the
header has no index. A record (with the line ends in it) is at most `max_line_bytes` long, which also stops a quote
that is never closed. Knows nothing of keys (see records.py).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from operator import length_hint

import pyarrow as pa

from batchinfer.errors import SourceError
from batchinfer.job.source_spec import CsvSource as CsvSpec
from batchinfer.record import Record, Rejection
from batchinfer.sources.base import Partitions, Slice
from batchinfer.sources.compression import codec_of
from batchinfer.sources.lines import BLOCK_BYTES, LongLine, after_bom, file_blocks, split_lines, too_long
from batchinfer.sources.records import (
    Chunk,
    Fields,
    Unreadable,
    check_columns,
    grouped,
    projected_schema,
    record_maker,
    whole_file,
)
from batchinfer.storage.base import Entry, Storage

_LINE_ENDS = (b"\n", b"\r\n", b"\r")


class CsvSource:
    """A record per CSV record, its fields named by the header line or by `header`."""

    def __init__(self, spec: CsvSpec, storage: Storage):
        self._spec, self._storage = spec, storage

    def slices(self, entry: Entry, target_bytes: int, partitions: Partitions = ()) -> Iterator[Slice]:
        if entry.size_bytes == 0:
            return
        whole = whole_file(entry, partitions)
        check_columns(entry.uri, self._names(whole), self._spec, partitions)
        if codec_of(entry.uri, self._spec.compression):
            yield whole
        else:
            yield from grouped(entry, self._chunks(whole, target_bytes), target_bytes, partitions)

    def _chunks(self, whole: Slice, target_bytes: int) -> Iterator[Chunk]:
        parser = self._parser(whole, target_bytes)
        begin, header = 0, 1 if self._spec.header is None else 0
        for count in parser.counts():
            names = min(header, count)
            yield Chunk(begin, parser.offset, parser.offset - begin, count - names)
            begin, header = parser.offset, header - names

    def fields(self, first: Slice) -> pa.Schema:
        schema = pa.schema([(name, pa.string()) for name in self._names(first)])
        return projected_schema(schema, self._spec, first.partitions)

    def read(self, piece: Slice) -> Iterator[Record | Rejection]:
        return islice(self._records(piece), piece.take)

    def _records(self, piece: Slice) -> Iterator[Record | Rejection]:
        names = self._names(piece)
        check_columns(piece.uri, names, self._spec, piece.partitions)
        make = record_maker(piece, self._spec)
        records = self._parser(piece).records()
        if piece.begin == 0 and self._spec.header is None:
            next(records)
        for row, values in enumerate(records, piece.first_row):
            yield make(_named(names, values), row)

    def _names(self, piece: Slice) -> list[str]:
        if self._spec.header is not None:
            return list(self._spec.header)
        names = next(self._parser(replace(piece, begin=0, end=None)).records(), None)
        match names:
            case list() if all(names):
                return names
            case list():
                problem = f"column {names.index('') + 1} of the header line has no name"
            case Unreadable():
                problem = f"the header line cannot be read: {names.message}"
            case None:
                problem = "there is no header line"
        raise SourceError(piece.uri, f"{problem}; mend it, or name the columns in source.header")

    def _parser(self, piece: Slice, block_bytes: int = BLOCK_BYTES) -> _Parser:
        blocks = file_blocks(self._storage, piece, self._spec.compression, block_bytes)
        return _Parser(blocks, piece, self._spec)


def _named(names: list[str], values: list[str] | Unreadable) -> Fields | Unreadable:
    if isinstance(values, Unreadable):
        return values
    if len(values) == len(names):
        return dict(zip(names, values, strict=True))
    counts = f"{len(values)} fields where the header names {len(names)}"
    return Unreadable("ragged_row", f"{counts}; quote fields that hold the delimiter or a line end", values)


class _TooLong(Exception):
    """Leaves the csv reader in the middle of a record; `args[0]` is what to say of it."""


class _Parser:
    """The records of a slice, in one pass. `offset`: where in the (plain) file the next one begins."""

    def __init__(self, blocks: Iterator[bytes], piece: Slice, spec: CsvSpec):
        self._delimiter = spec.delimiter or {"csv": ",", "tsv": "\t"}[spec.format]
        self._quote, self._max = spec.quote, spec.max_line_bytes
        self.offset, blocks = after_bom(blocks, piece.begin)
        self._batches = split_lines(blocks, self._max, keepends=True)
        self._batch: Iterator[bytes | LongLine] = iter(())
        self._begin = self.offset
        self._fault: UnicodeDecodeError | None = None
        self._over = False
        # The csv module's own limit is of the process, not of a reader; ours is the one that counts, so only raise it.
        csv.field_size_limit(max(csv.field_size_limit(), self._max))

    def records(self) -> Iterator[list[str] | Unreadable]:
        """The values of each record."""
        reader = self._reader()
        while True:
            self._begin, self._fault = self.offset, None
            try:
                values = next(reader)
            except StopIteration:
                return
            except _TooLong as error:
                yield error.args[0]
                reader = self._reader()
                continue
            if self._over:  # a record that asks for more lines than there are
                yield _never_closed(values)
            elif self._fault is not None:
                yield _not_utf8(values, self._fault)
            elif values:
                yield values

    def counts(self) -> Iterator[int]:
        """The same without the values: numbers of records that end at `offset`. Blocks without a quote go unparsed."""
        records = self.records()
        while lines := next(self._batches, None):
            plain = self._plain_records(lines)
            if plain is not None:
                self.offset += sum(map(len, lines))  # type: ignore[arg-type]
                yield plain
                continue
            self._batch = iter(lines)
            while length_hint(self._batch):
                if next(records, None):
                    yield 1

    def _plain_records(self, lines: list[bytes | LongLine]) -> int | None:
        """How many of the lines are records, None where only the parser can tell."""
        if any(isinstance(line, LongLine) for line in lines) or self._quote.encode() in b"".join(lines):  # type: ignore
            return None
        return len(lines) - sum(map(lines.count, _LINE_ENDS))

    def _reader(self) -> Iterator[list[str]]:
        return csv.reader(self._texts(), delimiter=self._delimiter, quotechar=self._quote)

    def _texts(self) -> Iterator[str]:
        while (line := self._next_line()) is not None:
            if isinstance(line, LongLine):
                self.offset += line.size_bytes
                raise _TooLong(too_long(line, self._max))
            self.offset += len(line)
            if self.offset - self._begin > self._max:
                raise _TooLong(_unclosed(line, self._max))
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                self._fault = error
                text = line.decode(errors="surrogateescape")
            yield text
        self._over = True

    def _next_line(self) -> bytes | LongLine | None:
        line = next(self._batch, None)
        if line is None and (lines := next(self._batches, None)):
            self._batch = iter(lines)
            line = next(self._batch)
        return line


def _unclosed(line: bytes, max_line_bytes: int) -> Unreadable:
    message = f"more than source.max_line_bytes ({max_line_bytes}) in one record; is a quote before this never closed?"
    return Unreadable("line_too_long", message, line.decode(errors="replace"))


def _never_closed(values: list[str]) -> Unreadable:
    message = "a quote in this record is never closed, so it takes in the rest of the file; close it"
    readable = [value.encode(errors="surrogateescape").decode(errors="replace") for value in values]
    return Unreadable("unclosed_quote", message, readable)


def _not_utf8(values: list[str], fault: UnicodeDecodeError) -> Unreadable:
    message = f"not UTF-8 at byte {fault.start} of the line ({fault.reason}); convert the file to UTF-8"
    readable = [value.encode(errors="surrogateescape").decode(errors="replace") for value in values]
    return Unreadable("bad_utf8", message, readable)
