"""Storage that dies, or lies about what it did, at its k-th operation.

`Dying(k, after)`: the k-th writing operation is the last thing that happens (`after`: it still takes effect), as if
the process had been killed there: every later operation raises too, clean-up included.
`Lying(k)`: the k-th writing operation takes effect, and then reports a time-out, once.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from batchinfer.errors import TransientStorageError
from batchinfer.storage.base import Entry, Storage


class Killed(BaseException):
    """Not an Exception: nothing in the product may catch it and go on."""


class Operations:
    """Counts writing operations over all storages handed out; `before` and `after` are called around each."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.RLock()

    def next(self) -> int:
        with self._lock:
            self.count += 1
            return self.count

    def around(self, name: str, action: Callable[[], Any]) -> Any:
        self.next()
        return action()

    def reading(self) -> None: ...


class Dying(Operations):
    def __init__(self, at: int, after: bool):
        super().__init__()
        self.at, self.after, self.dead = at, after, False

    def around(self, name: str, action: Callable[[], Any]) -> Any:
        with self._lock:
            self.reading()
            if self.next() != self.at:
                return action()
            self.dead = True
            if self.after:
                action()
            raise Killed(name)

    def reading(self) -> None:
        if self.dead:
            raise Killed("dead already")


class Lying(Operations):
    def __init__(self, at: int):
        super().__init__()
        self.at = at

    def around(self, name: str, action: Callable[[], Any]) -> Any:
        number, result = self.next(), action()
        if number == self.at:
            raise TransientStorageError(name, "timed out (though it was done)")
        return result


class FaultyStorage:
    """A storage whose writing operations go through `operations`."""

    def __init__(self, storage: Storage, operations: Operations):
        self._storage, self._operations = storage, operations

    def stat(self, uri: str) -> Entry:
        self._operations.reading()
        return self._storage.stat(uri)

    def list(self, pattern: str) -> Iterator[Entry]:
        self._operations.reading()
        return self._storage.list(pattern)

    def open_read(self, uri: str, version: str | None = None) -> BinaryIO:
        self._operations.reading()
        return self._storage.open_read(uri, version)

    def read(self, uri: str) -> bytes:
        self._operations.reading()
        return self._storage.read(uri)

    def open_write(self, uri: str) -> BinaryIO:
        stream = self._operations.around("open_write", lambda: self._storage.open_write(uri))
        return FaultyStream(stream, self._operations)  # type: ignore[return-value]

    def write(self, uri: str, data: bytes) -> None:
        self._operations.around("write", lambda: self._storage.write(uri, data))

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        return self._operations.around("put_if_absent", lambda: self._storage.put_if_absent(uri, data))

    def publish(self, staged: str, final: str) -> None:
        self._operations.around("publish", lambda: self._storage.publish(staged, final))

    def delete(self, uri: str) -> None:
        self._operations.around("delete", lambda: self._storage.delete(uri))

    def delete_tree(self, uri: str) -> None:
        self._operations.around("delete_tree", lambda: self._storage.delete_tree(uri))

    def sweep(self, uri: str) -> None:
        self._operations.around("sweep", lambda: self._storage.sweep(uri))


class FaultyStream(io.RawIOBase):
    """A stream being written; closing it is an operation (that is when it becomes durable)."""

    def __init__(self, stream: BinaryIO, operations: Operations):
        self._stream, self._operations, self._ended = stream, operations, False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._operations.reading()
        return self._stream.write(data)

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._operations.around("close", self._stream.close)
        super().close()
