"""How many rows a part file holds, counted from the file itself: what `verify` compares with the ledger."""

from __future__ import annotations

import gzip
import io
import posixpath
import struct
from typing import BinaryIO

import pyarrow.parquet as pq

from batchinfer.errors import VerifyError

_CHUNK_BYTES = 1 << 20


def count_rows(path: str, stream: BinaryIO) -> int:
    """Rows in a part, by the format that its name says. Raises VerifyError for a name that is no part's."""
    name, compression = posixpath.splitext(path)
    match compression:
        case ".gz":
            return _plain(name, gzip.open(stream))  # type: ignore[arg-type]
        case ".zst":
            import zstandard

            return _plain(name, zstandard.ZstdDecompressor().stream_reader(stream))  # type: ignore[arg-type]
        case _:
            return _plain(path, stream)


def _plain(path: str, stream: BinaryIO) -> int:
    match posixpath.splitext(path)[1]:
        case ".parquet":
            return pq.ParquetFile(stream).metadata.num_rows
        case ".jsonl":
            return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(_CHUNK_BYTES), b""))
        case ".tfrecord":
            return _frames(io.BufferedReader(stream, _CHUNK_BYTES))  # type: ignore[arg-type]
        case _:
            raise VerifyError(f"{path}: is not the name of a part file")


def _frames(stream: io.BufferedReader) -> int:
    """TFRecord: 8 bytes of length, 4 of checksum, the record, 4 of checksum."""
    frames = 0
    while head := stream.read(12):
        stream.read(struct.unpack("<Q", head[:8])[0] + 4)
        frames += 1
    return frames
