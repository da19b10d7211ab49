"""Files in memory, and the short way from bytes to the rows a source makes of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, BinaryIO

import pytest
from pydantic import TypeAdapter

from batchinfer.errors import NotFoundError
from batchinfer.job.spec import Source as SourceSpec
from batchinfer.record import Record, Rejection
from batchinfer.sources import Slice, Source, find_inputs, limit_slices, open_source
from batchinfer.sources.inputs import cut_inputs
from batchinfer.storage.base import Entry

Row = Record | Rejection


@dataclass
class MemoryFiles:
    """The reading half of a storage; `written[uri] = data` makes a file."""

    written: dict[str, bytes] = field(default_factory=dict)

    def stat(self, uri: str) -> Entry:
        if uri not in self.written:
            raise NotFoundError(uri, "no such file")
        return Entry(uri, len(self.written[uri]), "1")

    def list(self, pattern: str) -> Iterator[Entry]:
        yield from (self.stat(uri) for uri in sorted(self.written) if fnmatchcase(uri, pattern))

    def open_read(self, uri: str, version: str | None = None) -> BinaryIO:
        return io.BytesIO(self.written[uri])


@dataclass(frozen=True)
class Job:
    """A `source` section over one file (or a few) in memory."""

    spec: Any
    files: MemoryFiles
    seed: int = 0

    @property
    def source(self) -> Source:
        return open_source(self.spec, self.files, self.seed)  # type: ignore[arg-type]

    def slices(self, target_bytes: int = 1 << 20) -> list[Slice]:
        slices = cut_inputs(find_inputs(self.spec, self.files), self.source, target_bytes)  # type: ignore[arg-type]
        if self.spec.limit is not None:
            slices = limit_slices(slices, self.spec.limit, self.source)
        return list(slices)

    def rows(self, target_bytes: int = 1 << 20) -> list[Row]:
        return [row for piece in self.slices(target_bytes) for row in self.source.read(piece)]

    def records(self) -> list[dict[str, Any]]:
        """The fields of all rows, none of which may be a rejection."""
        rows = self.rows()
        assert all(isinstance(row, Record) for row in rows), rows
        return [dict(row.fields) for row in rows if isinstance(row, Record)]

    def faults(self) -> list[tuple[int, str]]:
        return [(row.row, row.error) for row in self.rows() if isinstance(row, Rejection)]


def make_job(data: bytes | dict[str, bytes], /, seed: int = 0, **spec: Any) -> Job:
    """`spec` as in the job file; the path is "data" (or `path`), which holds `data`, or names within a mapping."""
    spec = {"path": "data", **spec}
    files = data if isinstance(data, dict) else {spec["path"]: data}
    return Job(TypeAdapter(SourceSpec).validate_python(spec), MemoryFiles(dict(files)), seed)


@pytest.fixture(scope="session")
def job():
    return make_job


@pytest.fixture(scope="session")
def spec_of():
    return TypeAdapter(SourceSpec).validate_python
