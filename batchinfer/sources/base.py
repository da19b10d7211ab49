"""What a source is: it cuts files into slices (planning) and turns a slice into records (running).

Knows nothing of models, batches or outputs. Planning must not import jax.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from batchinfer.record import Record, Rejection
from batchinfer.storage.base import Entry

Partitions = tuple[tuple[str, str], ...]
"""Hive columns found in a path (`dt=2026-11-22/`), name and text, outermost first."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A stable piece of one file. JSON-safe; two equal slices of an unchanged file hold the same records.

    `begin`, `end`: bytes (line formats, avro, tfrecord), row groups (parquet), record batches (arrow);
    `end` None means to the end of the file.
    `first_row`: row index of the first record in the file. `rows`: number of records, None if unknown before reading.
    `take`: read only that many records (set by `limit`), None for all.
    """

    uri: str
    version: str
    begin: int
    end: int | None
    size_bytes: int
    first_row: int
    rows: int | None
    take: int | None = None
    partitions: Partitions = ()


class Source(Protocol):
    """One family of formats, bound to its part of the job and to a storage."""

    def slices(self, entry: Entry, target_bytes: int, partitions: Partitions = ()) -> Iterator[Slice]:
        """Cuts one file into slices of about `target_bytes` input bytes, in file order, each record in exactly one.

        `partitions` go into every slice. An empty file gives no slice. Raises SourceError for a fault of the file as
        a whole that can be seen now.
        """
        ...

    def fields(self, first: Slice) -> pa.Schema:
        """Names and types of the record fields, from the file's schema or from its first records (at most 1000)."""
        ...

    def read(self, piece: Slice) -> Iterator[Record | Rejection]:
        """The records of a slice in file order, a Rejection (stage "read") for each that cannot be read.

        Streams: holds at most one chunk in memory. Raises SourceError if the file changed or breaks off.
        """
        ...
