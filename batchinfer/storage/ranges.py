"""A file in an object store as a seekable stream: fetched by ranges, several at once, ahead of whoever reads.

Reading on, the stream fetches ahead as far as it has come since the last jump, at least AHEAD_BYTES_MIN and at most
AHEAD_BYTES_MAX, in REQUESTS pieces: a small piece of a large file costs little more than itself, and a long read soon
has large requests in flight. Knows nothing of any store, of errors, or of what the bytes mean.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

REQUESTS = 4
AHEAD_BYTES_MIN = 1 << 20
AHEAD_BYTES_MAX = 16 << 20
"""Held in memory per open file, whether it has arrived or not; and the buffer of BUFFER_BYTES."""

BUFFER_BYTES = 256 << 10

Fetch = Callable[[int, int], bytes]
"""The bytes [begin, end) of the file, as many as that, or an error."""


def open_ranges(fetch: Fetch, size_bytes: int) -> BinaryIO:
    """A stream over a file of `size_bytes`; what `fetch` raises, reading raises. Close it to stop what is in flight."""
    return io.BufferedReader(_RangeStream(fetch, size_bytes), BUFFER_BYTES)


@dataclass(frozen=True, slots=True)
class _Piece:
    begin: int
    end: int
    data: Future[bytes]


class _RangeStream(io.RawIOBase):
    """Invariant: the pieces follow each other without a gap, and the first holds the position (or there are none)."""

    def __init__(self, fetch: Fetch, size_bytes: int):
        self._fetch, self._size = fetch, size_bytes
        self._position = 0
        self._jumped_to = 0
        self._pieces: deque[_Piece] = deque()
        self._threads = ThreadPoolExecutor(REQUESTS, thread_name_prefix="range")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"a position before the file's first byte: {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        if self._position >= self._size or not target:
            return 0
        self._drop_passed()
        self._fill(len(target))
        piece = self._pieces[0]
        data = memoryview(piece.data.result())[self._position - piece.begin :][: len(target)]
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._forget()
            self._threads.shutdown(wait=False)
        super().close()

    def _drop_passed(self) -> None:
        """Lets go of the pieces before the position; of all of them if it is in none."""
        if self._pieces and not self._pieces[0].begin <= self._position < self._pieces[-1].end:
            self._forget()
        while self._pieces and self._pieces[0].end <= self._position:
            self._pieces.popleft()
        if not self._pieces and self._position != self._jumped_to:
            self._jumped_to = self._position

    def _forget(self) -> None:
        for piece in self._pieces:
            piece.data.cancel()
        self._pieces.clear()

    def _fill(self, wanted: int) -> None:
        """Asks for more until enough is on its way."""
        come = self._position - self._jumped_to
        window = min(max(come, wanted, AHEAD_BYTES_MIN), AHEAD_BYTES_MAX)
        begin = self._pieces[-1].end if self._pieces else self._position
        while begin < min(self._position + window, self._size) and len(self._pieces) < 2 * REQUESTS:
            end = min(begin + -(-window // REQUESTS), self._size)
            self._pieces.append(_Piece(begin, end, self._threads.submit(self._fetch, begin, end)))
            begin = end
