"""A source of which just some rows are there: what a replay of rejected rows reads.

Knows nothing of formats, nor of why these rows were chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import orjson
import pyarrow as pa

from batchinfer.record import Record, Rejection
from batchinfer.sources.base import Partitions, Slice, Source
from batchinfer.storage.base import Entry


@dataclass(frozen=True, slots=True)
class Rows:
    """Row indices by file uri."""

    by_uri: Mapping[str, frozenset[int]]

    @property
    def digest(self) -> str:
        rows = {uri: sorted(rows) for uri, rows in self.by_uri.items()}
        return hashlib.sha256(orjson.dumps(rows, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def __contains__(self, row: Record | Rejection) -> bool:
        return row.row in self.by_uri.get(row.uri, ())


class OnlyRows:
    """`source` without the rows that are not in `rows`; how many a slice has is not known before reading."""

    def __init__(self, source: Source, rows: Rows):
        self._source, self._rows = source, rows

    def slices(self, entry: Entry, target_bytes: int, partitions: Partitions = ()) -> Iterator[Slice]:
        """Slices that may hold a wanted row."""
        last = max(self._rows.by_uri.get(entry.uri, ()), default=-1)
        for piece in self._source.slices(entry, target_bytes, partitions):
            if piece.first_row <= last:
                yield replace(piece, rows=None)

    def fields(self, first: Slice) -> pa.Schema:
        return self._source.fields(first)

    def read(self, piece: Slice) -> Iterator[Record | Rejection]:
        return (row for row in self._source.read(piece) if row in self._rows)
