"""`sample` and `limit`: which of a source's records a job takes. Sample comes first; limit counts sampled records.

Both depend on the records and their order alone, never on how files are cut into slices. Every record counts,
also one that becomes a rejection. Knows nothing of formats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import pyarrow as pa

from batchinfer.errors import SourceError
from batchinfer.record import Record, Rejection
from batchinfer.sources.base import Partitions, Slice, Source
from batchinfer.storage.base import Entry


class Sampled:
    """A source of which about `share` (0 < share <= 1) of the records are there, chosen by a hash of seed and key.

    Rows without a key (rejections) go by their place. Records with equal keys are all taken or all left out.
    How many of a slice's records are taken is not known before reading: `rows` is None.
    """

    def __init__(self, source: Source, share: float, seed: int):
        self._source = source
        self._bound = round(share * 2**64)
        self._seeded = hashlib.blake2b(f"{seed}:".encode(), digest_size=8)

    def slices(self, entry: Entry, target_bytes: int, partitions: Partitions = ()) -> Iterator[Slice]:
        for piece in self._source.slices(entry, target_bytes, partitions):
            yield replace(piece, rows=None)

    def fields(self, first: Slice) -> pa.Schema:
        return self._source.fields(first)

    def read(self, piece: Slice) -> Iterator[Record | Rejection]:
        return islice(filter(self._taken, self._source.read(replace(piece, take=None))), piece.take)

    def _taken(self, row: Record | Rejection) -> bool:
        key = f"{row.uri}:{row.row}" if row.key is None else row.key
        digest = self._seeded.copy()
        digest.update(str(key).encode(errors="surrogatepass"))
        return int.from_bytes(digest.digest(), "big") < self._bound


def limit_slices(slices: Iterable[Slice], records: int, source: Source) -> Iterator[Slice]:
    """The slices that hold the first `records` records, the last with `take` set; asks for no slice after it.

    A slice whose rows are not counted is read here, no further than needed: if it ends first its `rows` are filled in
    (and it is dropped when there are none), else `take` says how many of it there are. SourceError if there is no
    record at all.
    """
    left = records
    piece = None
    for piece in slices:
        if piece.rows is None:
            seen = sum(1 for _ in islice(source.read(piece), left))
            piece = replace(piece, rows=seen) if seen < left else replace(piece, take=left)
        else:
            seen = min(piece.rows, left)
            piece = replace(piece, take=left) if piece.rows > left else piece
        if seen:
            yield piece
        left -= seen
        if left == 0:
            return
    if piece is not None and left == records:
        raise SourceError(piece.uri, "no records: what is read (source.sample, source.limit) holds none")
