"""Reads compressed files as a stream of plain bytes; a file that breaks off or is corrupt is a SourceError.

Knows nothing of what the bytes mean. Decoding is pyarrow's: it notices truncation in all three formats, reads
concatenated members, and never holds more than the block it is asked for.
"""

from __future__ import annotations

import io
from typing import BinaryIO, Literal

import pyarrow as pa

from batchinfer.errors import SourceError
from batchinfer.job.section import Compression

Codec = Literal["gzip", "bzip2", "zstd"]

_SUFFIXES: dict[str, Codec] = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}
_ARROW_NAMES = {"gzip": "gzip", "bzip2": "bz2", "zstd": "zstd"}
_BUFFER_BYTES = 1 << 18


def codec_of(uri: str, asked: Compression) -> Codec | None:
    """How the file is compressed: as the job says, or by its name; None for plain files."""
    match asked:
        case "none":
            return None
        case "auto":
            return next((codec for suffix, codec in _SUFFIXES.items() if uri.lower().endswith(suffix)), None)
        case _:
            return asked


def decompressed(stream: BinaryIO, codec: Codec, uri: str) -> BinaryIO:
    """The plain bytes of a compressed stream, forward only. Reading raises SourceError where the data are broken."""
    return io.BufferedReader(_Plain(stream, codec, uri), _BUFFER_BYTES)


class _Plain(io.RawIOBase):
    def __init__(self, stream: BinaryIO, codec: Codec, uri: str):
        self._codec, self._uri = codec, uri
        self._plain = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), _ARROW_NAMES[codec])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[override]
        try:
            return self._plain.readinto(buffer)
        except OSError as error:
            raise SourceError(
                self._uri,
                f"the {self._codec} data break off or are corrupt ({error}); "
                "copy the file again, or set source.compression if it is compressed otherwise",
            ) from error
