"""What every storage backend can do; the verbs the rest of the product is allowed to use.

The only operation that decides anything is `put_if_absent`: a small conditional create. Renames decide nothing.
Knows nothing of formats, plans or commits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored file. `version` changes whenever its bytes do (a generation, an etag, or size and mtime)."""

    uri: str
    size_bytes: int
    version: str


class Storage(Protocol):
    """One URL scheme. Errors: NotFoundError, OutOfSpaceError, TransientStorageError, StorageError."""

    def stat(self, uri: str) -> Entry:
        """The entry under `uri`; NotFoundError if there is none (or it is a directory)."""
        ...

    def list(self, pattern: str) -> Iterator[Entry]:
        """Files matching a glob (`*`, `?`, `[..]`, `**` across directories), or everything under a directory.

        Sorted by uri; names starting with "." or "_" are skipped when listing a directory or matching `*`.
        Nothing found is an empty iterator, not an error.
        """
        ...

    def open_read(self, uri: str, version: str | None = None) -> BinaryIO:
        """A seekable stream over the file; if `version` is given and the file has changed since: SourceError."""
        ...

    def read(self, uri: str) -> bytes:
        """The whole of a small file."""
        ...

    def open_write(self, uri: str) -> BinaryIO:
        """A stream that creates (or replaces) the file; durable once `close` returns. Parents are made.

        Not atomic: only for names no reader looks at (staging).
        """
        ...

    def write(self, uri: str, data: bytes) -> None:
        """Replaces a small file as a whole: readers see the old bytes or the new, never a mixture."""
        ...

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Creates the file with these bytes unless something is there; True if this call created it.

        Durable when it returns. After a lost response the caller must read back: see ledger.py.
        """
        ...

    def publish(self, staged: str, final: str) -> None:
        """Makes the staged file appear under its final name, whole. Idempotent: if `staged` is gone and `final`
        exists, it was done before."""
        ...

    def delete(self, uri: str) -> None:
        """Removes a file; no error if it is not there."""
        ...

    def delete_tree(self, uri: str) -> None:
        """Removes everything under a directory; no error if it is not there."""
        ...

    def sweep(self, uri: str) -> None:
        """Removes hidden temporaries that a killed writer left directly in this directory; those of others stay."""
        ...
