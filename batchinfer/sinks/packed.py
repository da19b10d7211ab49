"""A stream that packs what is written to it (gzip, zstd, or not at all) into bytes that repeat.

The packers see blocks of one fixed size, however the data arrives; levels are pinned; no names, no times.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO, Literal, Protocol

import zstandard

Packing = Literal["none", "gzip", "zstd"]

BLOCK_BYTES = 1 << 20
GZIP_LEVEL = 6
ZSTD_LEVEL = 3
_GZIP_HEADER = 16 + zlib.MAX_WBITS  # asks zlib for a gzip header: no file name, time 0

SUFFIX: dict[Packing, str] = {"none": "", "gzip": ".gz", "zstd": ".zst"}


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Unpacked:
    """The packer that leaves the bytes as they are."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _packer(compression: Packing) -> _Packer:
    match compression:
        case "gzip":
            return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_HEADER)
        case "zstd":
            return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
        case "none":
            return _Unpacked()


class PackedStream:
    """Writes onto `stream`, which stays open after `close`. Holds at most one block in memory beside the packer's."""

    def __init__(self, stream: BinaryIO, compression: Packing):
        self._stream = stream
        self._packer = _packer(compression)
        self._block = bytearray()

    def write(self, data: bytes) -> None:
        self._block += data
        while len(self._block) >= BLOCK_BYTES:
            self._emit(self._packer.compress(bytes(self._block[:BLOCK_BYTES])))
            del self._block[:BLOCK_BYTES]

    def close(self) -> None:
        """Writes what is still buffered and the packer's trailer."""
        self._emit(self._packer.compress(bytes(self._block)))
        self._emit(self._packer.flush())
        self._block.clear()

    def _emit(self, packed: bytes) -> None:
        if packed:
            self._stream.write(packed)
