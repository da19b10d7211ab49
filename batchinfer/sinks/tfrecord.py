"""Predictions as TFRecord files of tf.train.Example messages, encoded here, without TensorFlow or protobuf.

A record is framed as: length (uint64, little endian), masked CRC-32C of those 8 bytes, data, masked CRC-32C of the
data (uint32 each); the mask rotates right by 15 bits and adds a constant. Data is
`Example{1: Features{1: repeated entry{1: name, 2: Feature{1: BytesList | 2: FloatList | 3: Int64List}}}}`,
each list holding its values in field 1, numbers packed. Features stand sorted by name, so that bytes repeat.
float16 and float32 become a float list; integers and booleans an int64 list; strings, bytes, dates, times and
decimals (as text) a bytes list. A null is an absent feature. Knows nothing of files.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import google_crc32c
import pyarrow as pa
from pyarrow import types

from batchinfer.errors import BatchInferError
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

CRC_MASK_DELTA = 0xA282EAD8
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = (b"\x0a", b"\x12", b"\x1a")  # tags of Feature's fields 1, 2, 3
_FIRST, _SECOND = b"\x0a", b"\x12"  # tags of fields 1 and 2 that hold bytes


class TFRecordSink:
    """The sink of `format: tfrecord`."""

    def __init__(self, wanted: spec.TFRecordSink):
        self._compression: Packing = wanted.compression
        self.suffix = ".tfrecord" + SUFFIX[wanted.compression]

    def open_part(self, stream: BinaryIO, schema: pa.Schema) -> PartWriter:
        return TFRecordPart(PackedStream(stream, self._compression), schema)

    def check(self, schema: pa.Schema) -> list[str]:
        faults = [
            f"column {field.name}: a tf.train.Example cannot hold {field.type}; leave it out, or use parquet or jsonl"
            for field in plain_schema(schema)
            if not _fits(field.type)
        ]
        return repeated_columns(schema) + faults


class TFRecordPart:
    """One TFRecord file."""

    def __init__(self, stream: PackedStream, schema: pa.Schema):
        self._stream = stream
        self._schema = plain_schema(schema)

    def write(self, table: pa.Table) -> None:
        names = sorted(self._schema.names)
        for batch in table.cast(self._schema).to_batches():
            columns = [_entries(name, batch.column(name)) for name in names]
            for row in zip(*columns, strict=True):
                self._stream.write(framed(_field(_FIRST, b"".join(row))))

    def close(self) -> None:
        self._stream.close()


def framed(data: bytes) -> bytes:
    """One TFRecord: `data` with its length and both checksums."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    rotated = (crc >> 15) | (crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + CRC_MASK_DELTA) & 0xFFFFFFFF)


# --- which column becomes which feature -----------------------------------------------------------------------------


def _fits(kind: pa.DataType) -> bool:
    return types.is_null(kind) or _tag(_item_type(kind)) is not None


def _item_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if is_list(kind) else kind


def _tag(kind: pa.DataType) -> bytes | None:
    """The Feature field for scalars of this type, None if there is none that holds them exactly."""
    if types.is_float16(kind) or types.is_float32(kind):
        return _FLOAT_LIST
    if types.is_boolean(kind) or (types.is_integer(kind) and not types.is_uint64(kind)):
        return _INT64_LIST
    if types.is_string(kind) or types.is_large_string(kind) or is_text_like(kind):
        return _BYTES_LIST
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _BYTES_LIST
    return None


def _entries(name: str, column: pa.Array) -> Iterable[bytes]:
    """For each row the map entry of this feature, empty where the value is null."""
    if types.is_null(column.type):
        return [b""] * len(column)
    items, at = list_items(column) if is_list(column.type) else (column, list(range(len(column) + 1)))
    valid = column.is_valid().to_pylist()
    if items is not column and items.null_count:
        _refuse_null_items(name, items, at, valid)
    tag, key = _tag(items.type), _field(_FIRST, name.encode())
    if tag is None:
        raise TypeError(f"column {name}: {column.type} (check() names it)")
    lists = _lists(tag, items, at)
    return [
        _field(_FIRST, key + _field(_SECOND, _field(tag, values))) if ok else b""
        for values, ok in zip(lists, valid, strict=True)
    ]


def _refuse_null_items(name: str, items: pa.Array, at: Sequence[int], valid: Sequence[bool]) -> None:
    present = items.is_valid().to_pylist()
    for row, ok in enumerate(valid):
        if ok and not all(present[at[row] : at[row + 1]]):
            raise BatchInferError(
                f"column {name}: row {row} of {len(valid)} holds a null inside a list, which a tf.train.Example "
                "cannot hold; leave the column out, or use parquet or jsonl"
            )


# --- wire format ----------------------------------------------------------------------------------------------------


def _lists(tag: bytes, items: pa.Array, at: Sequence[int]) -> list[bytes]:
    """The BytesList, FloatList or Int64List message of each row."""
    spans = list(itertools.pairwise(at))
    if tag == _FLOAT_LIST:
        floats = raw_numbers(items).astype("<f4")
        return [_packed(floats[begin:end].tobytes()) for begin, end in spans]
    if tag == _INT64_LIST:
        varints = [_varint(value or 0) for value in items.to_pylist()]
        return [_packed(b"".join(varints[begin:end])) for begin, end in spans]
    fields = [_field(_FIRST, value) for value in _as_bytes(items)]
    return [b"".join(fields[begin:end]) for begin, end in spans]


def _as_bytes(items: pa.Array) -> list[bytes]:
    kind = items.type
    if is_text_like(kind) or types.is_string(kind) or types.is_large_string(kind):
        strings = texts(items) if is_text_like(kind) else items.to_pylist()
        return [(text or "").encode() for text in strings]
    return [value or b"" for value in items.to_pylist()]


def _packed(values: bytes) -> bytes:
    return _field(_FIRST, values) if values else b""


def _field(tag: bytes, data: bytes) -> bytes:
    return b"".join((tag, _varint(len(data)), data))


def _varint(value: int) -> bytes:
    """Base 128, least significant group first; negative numbers as their 64-bit two's complement."""
    value &= 0xFFFFFFFFFFFFFFFF
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
