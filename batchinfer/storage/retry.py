"""Tries storage operations again that failed for a passing reason: a few times, waiting a little longer each time.

Safe for every verb, because every verb is idempotent in the way it is used: whoever calls `put_if_absent` must read
back when it returns False, and so also learns of a success whose answer was lost. A stream that breaks is not tried
again here: the unit that wrote it is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from batchinfer.errors import TransientStorageError
from batchinfer.storage.base import Entry, Storage

T = TypeVar("T")

TRIES = 4
WAIT_SECONDS = 0.1
"""Before the second try; doubles, with up to half as much again at random so that workers do not march in step."""


class RetryingStorage:
    def __init__(self, storage: Storage):
        self._storage = storage

    def stat(self, uri: str) -> Entry:
        return _again(lambda: self._storage.stat(uri))

    def list(self, pattern: str) -> Iterator[Entry]:
        return self._storage.list(pattern)

    def open_read(self, uri: str, version: str | None = None) -> BinaryIO:
        return _again(lambda: self._storage.open_read(uri, version))

    def read(self, uri: str) -> bytes:
        return _again(lambda: self._storage.read(uri))

    def open_write(self, uri: str) -> BinaryIO:
        return _again(lambda: self._storage.open_write(uri))

    def write(self, uri: str, data: bytes) -> None:
        _again(lambda: self._storage.write(uri, data))

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        return _again(lambda: self._storage.put_if_absent(uri, data))

    def publish(self, staged: str, final: str) -> None:
        _again(lambda: self._storage.publish(staged, final))

    def delete(self, uri: str) -> None:
        _again(lambda: self._storage.delete(uri))

    def delete_tree(self, uri: str) -> None:
        _again(lambda: self._storage.delete_tree(uri))

    def sweep(self, uri: str) -> None:
        _again(lambda: self._storage.sweep(uri))


def _again(action: Callable[[], T]) -> T:
    for turn in range(TRIES - 1):
        try:
            return action()
        except TransientStorageError:
            time.sleep(WAIT_SECONDS * 2**turn * (1 + random.random() / 2))
    return action()
