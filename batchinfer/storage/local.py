"""Files on a local (or mounted) POSIX file system.

`put_if_absent` is a hard link: link(2) either creates the name with its whole content or fails, even over NFS.
Everything is fsynced before it is promised. Knows nothing of what the files mean.
"""

from __future__ import annotations

import errno
import fnmatch
import io
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from batchinfer.errors import NotFoundError, OutOfSpaceError, SourceError, StorageError, TransientStorageError
from batchinfer.storage.base import Entry

TEMPORARY = ".tmp-"
TURNS = 4
"""How often a change is tried that another run may have got in the way of."""

FOREIGN_SECONDS = 3600
"""A temporary of another host is taken for left behind when it is older than this."""

T = TypeVar("T")
_MAGIC = frozenset("*?[")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PASSING = (errno.EINTR, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.EIO)


class LocalStorage:
    """Storage over plain paths and file:// uris. Uris come back as they were given (relative stays relative)."""

    def stat(self, uri: str) -> Entry:
        path = _path(uri)
        with _errors(uri):
            status = os.stat(path)
        if not os.path.isfile(path):
            raise NotFoundError(uri, "is a directory, not a file" if os.path.isdir(path) else "is not a regular file")
        return Entry(uri, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")

    def list(self, pattern: str) -> Iterator[Entry]:
        path = _path(pattern)
        scheme = pattern[: len(pattern) - len(path)]
        fixed, wild = _split_pattern(path)
        for found in sorted(_walk(fixed or ".", wild)):
            yield self.stat(scheme + (os.path.join(fixed, found) if fixed else found))

    def open_read(self, uri: str, version: str | None = None) -> BinaryIO:
        with _errors(uri):
            stream = open(_path(uri), "rb")  # noqa: SIM115 - handed to the caller
        if version is not None and self.stat(uri).version != version:
            stream.close()
            raise SourceError(uri, "has changed since it was planned; run again with --overwrite to plan anew")
        return stream

    def read(self, uri: str) -> bytes:
        with _errors(uri):
            return Path(_path(uri)).read_bytes()

    def open_write(self, uri: str) -> BinaryIO:
        path = _path(uri)
        with _errors(uri):
            return _again(lambda: io.BufferedWriter(_DurableFile(_with_parents(path), uri), buffer_size=1 << 20))

    def write(self, uri: str, data: bytes) -> None:
        path = _path(uri)
        with _errors(uri):
            os.replace(_write_temporary(path, data), path)
            _sync_directory(path)

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        path = _path(uri)
        with _errors(uri):
            created = _link(_write_temporary(path, data), path)
            _sync_directory(path)
            return created

    def publish(self, staged: str, final: str) -> None:
        source, target = _path(staged), _path(final)
        with _errors(final):
            _with_parents(target)
            try:
                os.replace(source, target)
            except FileNotFoundError:
                if not os.path.isfile(target):
                    raise
            _sync_directory(target)

    def delete(self, uri: str) -> None:
        with _errors(uri), suppress(FileNotFoundError):
            os.unlink(_path(uri))

    def delete_tree(self, uri: str) -> None:
        path = _path(uri)
        with _errors(uri):
            for _ in range(TURNS):  # files may come and go meanwhile, when two runs of one job end at once
                with suppress(OSError):
                    shutil.rmtree(path)
                if not os.path.lexists(path):
                    return
            with suppress(FileNotFoundError):
                shutil.rmtree(path)

    def sweep(self, uri: str) -> None:
        """Removes temporaries of writers that are dead: those of another run at work stay."""
        path = _path(uri)
        with _errors(uri), suppress(FileNotFoundError):
            for name in os.listdir(path):
                if name.startswith(TEMPORARY) and _is_left_behind(os.path.join(path, name)):
                    os.unlink(os.path.join(path, name))


class _DurableFile(io.FileIO):
    """A file that is fsynced when closed, and whose faults carry the uri."""

    def __init__(self, path: str, uri: str):
        self._uri = uri
        super().__init__(path, "wb")

    def write(self, data) -> int:  # type: ignore[override]
        with _errors(self._uri):
            return super().write(data)

    def close(self) -> None:
        if not self.closed:
            with _errors(self._uri):
                try:
                    os.fsync(self.fileno())
                finally:
                    super().close()


def _path(uri: str) -> str:
    return uri.removeprefix("file://")


def _again(action: Callable[[], T]) -> T:
    """`action`, tried again if a directory it had just made is gone: another run of the job may be removing staging."""
    for _ in range(TURNS):
        with suppress(FileNotFoundError):
            return action()
    return action()


def _with_parents(path: str) -> str:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    return path


def _link(temporary: str, path: str) -> bool:
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _write_temporary(path: str, data: bytes) -> str:
    """A hidden file beside `path`; its name says who writes it."""
    directory = os.path.dirname(_with_parents(path)) or "."
    temporary = os.path.join(directory, f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}")
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return temporary


def _is_left_behind(temporary: str) -> bool:
    """Whether the process that wrote it is gone; of another host's process only age can tell."""
    host, _, pid = os.path.basename(temporary).removeprefix(TEMPORARY).rpartition("-")[0].rpartition("-")
    if host != socket.gethostname() or not pid.isdecimal():
        return time.time() - os.stat(temporary).st_mtime > FOREIGN_SECONDS
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _sync_directory(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turns the system's errors into ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(uri, "no such file") from error
    except NotADirectoryError as error:
        raise NotFoundError(uri, "part of its path is a file, not a directory") from error
    except PermissionError as error:
        raise StorageError(uri, "permission denied") from error
    except OSError as error:
        if error.errno in _FULL:
            raise OutOfSpaceError(uri, "no space left on the device; free some and run again to resume") from error
        kind = TransientStorageError if error.errno in _PASSING else StorageError
        raise kind(uri, error.strerror or str(error)) from error


def _split_pattern(path: str) -> tuple[str, list[str]]:
    """The directory part without wildcards, and the components after it; a directory means everything below."""
    parts = path.split("/")
    cut = next((i for i, part in enumerate(parts) if _MAGIC & set(part)), None)
    if cut is None:
        return (path.rstrip("/") or "/", ["**"]) if os.path.isdir(path) else (os.path.dirname(path), [parts[-1]])
    return "/".join(parts[:cut]) or ("/" if path.startswith("/") else ""), parts[cut:]


def _walk(directory: str, wild: list[str]) -> Iterator[str]:
    """Relative paths of regular files below `directory` that match the components `wild`."""
    head, rest = wild[0], wild[1:]
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        for entry in entries:
            yield from _match(entry, head, rest)
    if head == "**" and rest:  # `**` may also stand for no directory at all
        yield from _walk(directory, rest)


def _match(entry: os.DirEntry[str], head: str, rest: list[str]) -> Iterator[str]:
    if entry.name[0] in "._" and head[0] != entry.name[0]:
        return
    if head == "**":
        if entry.is_dir():
            yield from (f"{entry.name}/{below}" for below in _walk(entry.path, ["**", *rest]))
        elif not rest and entry.is_file():
            yield entry.name
    elif fnmatch.fnmatchcase(entry.name, head):
        if rest and entry.is_dir():
            yield from (f"{entry.name}/{below}" for below in _walk(entry.path, rest))
        elif not rest and entry.is_file():
            yield entry.name
