"""TFRecord files of tf.train.Example, plain or gzip, without TensorFlow.

A record is framed as length (uint64), masked CRC32C of the length, data, masked CRC32C of the data; all little endian.
A bad length checksum loses the place in the file (SourceError); a bad data checksum costs that record (rejection).
A feature of one value becomes that value, of several a list, of none null; bytes that are UTF-8 become text, since an
Example has no other way to hold text. Knows nothing of keys (see records.py).

Source of the mask and the framing: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO

import google_crc32c
import pyarrow as pa

from batchinfer.errors import SourceError
from batchinfer.job.source_spec import TFRecordSource as TFRecordSpec
from batchinfer.record import Record, Rejection
from batchinfer.sources.base import Partitions, Slice
from batchinfer.sources.compression import codec_of, decompressed
from batchinfer.sources.records import (
    SCHEMA_ROWS,
    Chunk,
    Fields,
    Unreadable,
    grouped,
    inferred_schema,
    record_maker,
    whole_file,
)
from batchinfer.storage.base import Entry, Storage

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")


class TFRecordSource:
    """A record per Example. Plain files are cut into byte ranges of whole records; a gzip file is one slice."""

    def __init__(self, spec: TFRecordSpec, storage: Storage):
        self._spec, self._storage = spec, storage

    def slices(self, entry: Entry, target_bytes: int, partitions: Partitions = ()) -> Iterator[Slice]:
        if entry.size_bytes == 0:
            return
        whole = whole_file(entry, partitions)
        if codec_of(entry.uri, self._spec.compression):
            yield whole
        else:
            yield from grouped(entry, self._chunks(whole), target_bytes, partitions)

    def _chunks(self, whole: Slice) -> Iterator[Chunk]:
        """Hops from header to header; the data are checked when they are read."""
        begin = 0
        with self._storage.open_read(whole.uri, whole.version) as stream:
            while (length := _read_length(stream, whole.uri, begin)) is not None:
                size = _HEADER.size + length + _CHECKSUM.size
                if begin + size > whole.size_bytes:
                    raise _cut_off(whole.uri, begin)
                stream.seek(begin + size)
                yield Chunk(begin, begin + size, size, 1)
                begin += size

    def fields(self, first: Slice) -> pa.Schema:
        return inferred_schema(self.read(replace(first, take=SCHEMA_ROWS)))

    def read(self, piece: Slice) -> Iterator[Record | Rejection]:
        return islice(self._records(piece), piece.take)

    def _records(self, piece: Slice) -> Iterator[Record | Rejection]:
        make, codec = record_maker(piece, self._spec), codec_of(piece.uri, self._spec.compression)
        with self._storage.open_read(piece.uri, piece.version) as stored:
            stream = decompressed(stored, codec, piece.uri) if codec else stored
            if codec is None:
                stream.seek(piece.begin)
            for row, data in enumerate(_framed(stream, piece), piece.first_row):
                yield make(data if isinstance(data, Unreadable) else decode_example(data), row)


def _framed(stream: BinaryIO, piece: Slice) -> Iterator[bytes | Unreadable]:
    """The data of each record of a slice, from where the stream stands."""
    offset = piece.begin
    while piece.end is None or offset < piece.end:
        length = _read_length(stream, piece.uri, offset)
        if length is None:
            if piece.end is not None:
                raise _cut_off(piece.uri, offset)
            return
        data, checksum = stream.read(length), stream.read(_CHECKSUM.size)
        if len(data) < length or len(checksum) < _CHECKSUM.size:
            raise _cut_off(piece.uri, offset)
        if _CHECKSUM.unpack(checksum)[0] == masked_crc32c(data):
            yield data
        else:
            yield Unreadable("bad_crc", f"the checksum of the data at byte {offset} does not match", data)
        offset += _HEADER.size + length + _CHECKSUM.size


def _read_length(stream: BinaryIO, uri: str, offset: int) -> int | None:
    header = stream.read(_HEADER.size)
    if not header:
        return None
    if len(header) < _HEADER.size:
        raise _cut_off(uri, offset)
    length, checksum = _HEADER.unpack(header)
    if checksum != masked_crc32c(header[:8]):
        raise SourceError(
            uri,
            f"no TFRecord at byte {offset} (length checksum); it is corrupt, compressed (source.compression) "
            "or in another format",
        )
    return length


def _cut_off(uri: str, offset: int) -> SourceError:
    return SourceError(uri, f"breaks off in the record at byte {offset}; write or copy it again")


def masked_crc32c(data: bytes) -> int:
    """The checksum as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


# --- tf.train.Example, by the protobuf wire format ------------------------------------------------------------------
# Example {1: Features}; Features {1: repeated entry {1: name, 2: Feature}};
# Feature {1: BytesList | 2: FloatList | 3: Int64List}, each {1: repeated value}, numbers packed or not.

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def decode_example(data: bytes) -> Fields | Unreadable:
    """The features of a serialized tf.train.Example."""
    fields: Fields = {}
    try:
        for features in _messages(data, 1):
            for entry in _messages(features, 1):
                name = b"".join(_messages(entry, 1)[-1:]).decode()
                fields[name] = _one_or_all([v for feature in _messages(entry, 2) for v in _feature(feature)])
    except (ValueError, struct.error) as error:
        return Unreadable("bad_example", f"not a tf.train.Example ({error})", data)
    return fields


def _one_or_all(values: list[Any]) -> Any:
    return None if not values else values[0] if len(values) == 1 else values


def _feature(feature: bytes) -> Iterator[Any]:
    for kind, _, values in _wire(feature):
        for number, wire_type, value in _wire(values):
            if number != 1:
                continue
            match kind, wire_type:
                case 1, 2:
                    yield _text_if_utf8(value)
                case 2, 2 | 5:
                    yield from struct.unpack(f"<{len(value) // 4}f", value)
                case 3, 2:
                    yield from _varints(value)
                case 3, 0:
                    yield _signed(value)
                case _:
                    raise ValueError(f"feature kind {kind} with wire type {wire_type}")


def _text_if_utf8(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _messages(data: bytes, number: int) -> list[bytes]:
    return [value for field, kind, value in _wire(data) if field == number and kind == _BYTES]


def _wire(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value): an int for a varint, else the bytes. Raises ValueError where data end early."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
        else:
            size, at = _size(kind, data, at)
            value = data[at : at + size]
            if len(value) < size:
                raise ValueError(f"{size} bytes announced, {len(value)} left")
            at += size
        yield tag >> 3, kind, value


def _size(kind: int, data: bytes, at: int) -> tuple[int, int]:
    match kind:
        case 1:
            return 8, at
        case 5:
            return 4, at
        case 2:
            return _varint(data, at)
        case _:
            raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a varint breaks off or is too long")


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield _signed(value)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
