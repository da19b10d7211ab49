"""What a unit became: the record of a commit, and the files it names, hashed on their way to staging.

Knows nothing of when a commit counts; see ledger.py.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import BinaryIO

import orjson


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One output file: its path below the output directory, and what it must be."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Commit:
    """What a unit became."""

    unit: int
    fingerprint: str
    files: tuple[FileRecord, ...]
    rows_in: int
    predictions: int
    rejections: int
    rejections_by_reason: Mapping[str, int] = field(default_factory=dict)
    duplicate_keys: int = 0

    @property
    def attempt(self) -> str:
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()[:16]

    def to_json(self) -> bytes:
        row = {**asdict(self), "attempt": self.attempt}
        return orjson.dumps(row, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Commit:
        row = orjson.loads(data)
        del row["attempt"]
        return cls(**{**row, "files": tuple(FileRecord(**file) for file in row["files"])})


class StagedFile(io.RawIOBase):
    """A file being written in staging: hashed and counted on its way. `seal` ends it."""

    def __init__(self, path: str, stream: BinaryIO):
        self._path, self._stream, self._hash, self._bytes = path, stream, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._hash.update(data)
        self._stream.write(data)
        size = memoryview(data).nbytes
        self._bytes += size
        return size

    def close(self) -> None:
        """Raises StorageError if the file cannot be made durable."""
        self._stream.close()
        super().close()

    def seal(self, rows: int) -> FileRecord:
        """Closes the file; what it must be from now on."""
        self.close()
        return FileRecord(self._path, rows, self._bytes, self._hash.hexdigest())
