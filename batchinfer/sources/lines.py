"""Line formats: JSON Lines, and text with a record per line. Also the byte-exact line splitting that CSV shares.

A line ends with "\\n", "\\r\\n" or "\\r"; the last one may lack its end; a UTF-8 byte order mark at the start of the
file is not data. Everything is done on bytes, so no character is ever cut; memory is bounded by one block and one
line of at most `max_line_bytes`. Knows nothing of keys or columns (see records.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import BinaryIO

import orjson
import pyarrow as pa

from batchinfer.errors import SourceError
from batchinfer.job.section import Compression
from batchinfer.job.source_spec import JsonlSource, TextSource
from batchinfer.record import Record, Rejection
from batchinfer.sources.base import Partitions, Slice
from batchinfer.sources.compression import codec_of, decompressed
from batchinfer.sources.records import SCHEMA_ROWS, Fields, Unreadable, inferred_schema, record_maker, whole_file
from batchinfer.storage.base import Entry, Storage

BLOCK_BYTES = 1 << 18
BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 200
_LINE_END = re.compile(rb"\r\n?|\n")


class LineSource:
    """A record per line. `row` is the index of the line in the file, empty lines included.

    In JSON Lines an empty line is no record; in text it is a record with an empty text.
    """

    def __init__(self, spec: JsonlSource | TextSource, storage: Storage):
        self._spec, self._storage = spec, storage
        match spec:
            case JsonlSource():
                self._decode, self._keep_empty = decode_json, False
            case TextSource():
                self._decode, self._keep_empty = text_decoder(spec.field), True

    def slices(self, entry: Entry, target_bytes: int, partitions: Partitions = ()) -> Iterator[Slice]:
        if entry.size_bytes == 0:
            return
        if codec_of(entry.uri, self._spec.compression):
            yield whole_file(entry, partitions)
            return
        whole = whole_file(entry, partitions)
        for cut in cut_lines(file_blocks(self._storage, whole, "none"), target_bytes):
            rows = cut.lines if self._keep_empty else cut.lines - cut.empty
            if rows:
                size = cut.end - cut.begin
                yield replace(whole, begin=cut.begin, end=cut.end, size_bytes=size, first_row=cut.first_line, rows=rows)

    def fields(self, first: Slice) -> pa.Schema:
        return inferred_schema(self.read(replace(first, take=SCHEMA_ROWS)))

    def read(self, piece: Slice) -> Iterator[Record | Rejection]:
        return islice(self._records(piece), piece.take)

    def _records(self, piece: Slice) -> Iterator[Record | Rejection]:
        make, decode, keep_empty = record_maker(piece, self._spec), self._decode, self._keep_empty
        _, blocks = after_bom(file_blocks(self._storage, piece, self._spec.compression), piece.begin)
        row, longest = piece.first_row, self._spec.max_line_bytes
        for lines in split_lines(blocks, longest):
            for line in lines:
                if line or keep_empty:
                    yield make(too_long(line, longest) if isinstance(line, LongLine) else decode(line), row)
                row += 1


def decode_json(line: bytes) -> Fields | Unreadable:
    """The object on the line. NaN and Infinity are not JSON; of duplicate names the last wins."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _undecodable(line, f"{error}; mend or remove the line")
    if type(value) is dict:
        return value
    return Unreadable("not_an_object", f"a JSON {type(value).__name__}, but a record must be an object {{...}}", value)


def text_decoder(field: str) -> Callable[[bytes], Fields | Unreadable]:
    """A decoder of text lines into records with that one field."""

    def decode(line: bytes) -> Fields | Unreadable:
        try:
            return {field: line.decode()}
        except UnicodeDecodeError:
            return _undecodable(line, "")

    return decode


def _undecodable(line: bytes, otherwise: str) -> Unreadable:
    try:
        return Unreadable("bad_json", otherwise, line.decode())
    except UnicodeDecodeError as error:
        message = f"not UTF-8 at byte {error.start} of the line ({error.reason}); convert the file to UTF-8"
        return Unreadable("bad_utf8", message, line.decode(errors="replace"))


# --- bytes to lines -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LongLine:
    """Stands for a line that is too long to hold: its first bytes, and how many there were."""

    head: bytes
    size_bytes: int


def too_long(line: LongLine, max_line_bytes: int) -> Unreadable:
    message = f"{line.size_bytes} bytes, more than source.max_line_bytes ({max_line_bytes}); raise it or split the line"
    return Unreadable("line_too_long", message, line.head.decode(errors="replace") + "... [cut]")


def file_blocks(
    storage: Storage, piece: Slice, compression: Compression, block_bytes: int = BLOCK_BYTES
) -> Iterator[bytes]:
    """The (decompressed) bytes of a slice in blocks of about `block_bytes`, none ending between "\\r" and "\\n"."""
    codec = codec_of(piece.uri, compression)
    size = min(max(block_bytes, len(BOM) + 1), BLOCK_BYTES)  # the byte order mark is never divided
    with storage.open_read(piece.uri, piece.version) as stream:
        if codec:
            yield from _blocks(decompressed(stream, codec, piece.uri), None, size, piece.uri)
        else:
            stream.seek(piece.begin)
            yield from _blocks(stream, None if piece.end is None else piece.end - piece.begin, size, piece.uri)


def _blocks(stream: BinaryIO, left: int | None, size: int, uri: str) -> Iterator[bytes]:
    held = b""
    while left is None or left > 0:
        block = stream.read(size if left is None else min(size, left))
        if not block:
            if left is not None:
                raise SourceError(uri, f"ends {left} bytes early; it was cut after it was planned: plan anew")
            break
        left = None if left is None else left - len(block)
        block = held + block
        held = b"\r" if block.endswith(b"\r") else b""
        if len(block) > len(held):
            yield block[: len(block) - len(held)]
    if held:
        yield held


def after_bom(blocks: Iterator[bytes], begin: int) -> tuple[int, Iterator[bytes]]:
    """The offset at which the data of a slice begin, and its blocks from there: past the file's byte order mark."""
    first = next(blocks, b"")
    mark = len(BOM) if begin == 0 and first.startswith(BOM) else 0
    return begin + mark, chain((first[mark:],), blocks) if len(first) > mark else blocks


def split_lines(
    blocks: Iterator[bytes], max_line_bytes: int, keepends: bool = False
) -> Iterator[list[bytes | LongLine]]:
    """The lines of a stream of blocks, a list per block (one call per list, not per line, keeps this fast)."""
    growing = _GrowingLine(max_line_bytes)
    for block in blocks:
        lines = block.splitlines(keepends)
        rest = b"" if block.endswith((b"\n", b"\r")) else lines.pop()
        if lines:
            short = len(block) <= max_line_bytes
            checked: list[bytes | LongLine] = [*lines] if short else [_checked(line, max_line_bytes) for line in lines]
            if growing.size_bytes:
                growing.add(lines[0])
                checked[0] = growing.finish()
            yield checked
        if rest:
            growing.add(rest)
    if growing.size_bytes:
        yield [growing.finish()]


def _checked(line: bytes, max_line_bytes: int) -> bytes | LongLine:
    return line if len(line) <= max_line_bytes else LongLine(line[:_HEAD_BYTES], len(line))


class _GrowingLine:
    """A line that goes on from block to block; once it is too long only its head is kept."""

    def __init__(self, max_line_bytes: int):
        self._max = max_line_bytes
        self._parts: list[bytes] = []
        self.size_bytes = 0

    def add(self, part: bytes) -> None:
        self._parts.append(part)
        self.size_bytes += len(part)
        if self.size_bytes > self._max:
            self._parts = [b"".join(self._parts)[:_HEAD_BYTES]]

    def finish(self) -> bytes | LongLine:
        text, size = b"".join(self._parts), self.size_bytes
        self._parts, self.size_bytes = [], 0
        return text if size <= self._max else LongLine(text, size)


# --- lines to slices ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LineCut:
    """Whole lines: the bytes [begin, end), the index of the first, how many, and how many of them are empty."""

    begin: int
    end: int
    first_line: int
    lines: int
    empty: int


def cut_lines(blocks: Iterator[bytes], target_bytes: int) -> Iterator[LineCut]:
    """Cuts a whole file after the first line end at or past every `target_bytes`, counting lines in the same pass."""
    begin = first_line = 0
    offset, blocks = after_bom(blocks, begin)
    tally = _LineTally()
    for block in blocks:
        start = 0
        while start < len(block):
            past = _LINE_END.search(block, max(start, begin + target_bytes - 1 - offset))
            end = past.end() if past else len(block)
            tally.add(block[start:end])
            if past:
                yield LineCut(begin, offset + end, first_line, tally.lines, tally.empty)
                begin, first_line, tally = offset + end, first_line + tally.lines, _LineTally()
            start = end
        offset += len(block)
    if tally.lines:
        yield LineCut(begin, offset, first_line, tally.lines, tally.empty)


class _LineTally:
    """Counts lines, and empty ones, over segments that may break off inside a line."""

    def __init__(self) -> None:
        self.lines = self.empty = 0
        self._inside = False

    def add(self, segment: bytes) -> None:
        lines = segment.splitlines()
        if not lines:
            return
        self.lines += len(lines)
        self.empty += lines.count(b"")
        if self._inside:  # the first one was counted when it began, and was not empty then
            self.lines -= 1
            self.empty -= lines[0] == b""
        self._inside = not segment.endswith((b"\n", b"\r"))
