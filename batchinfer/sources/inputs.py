"""Which files a job reads, and what their paths say: files, directories, globs, lists of them, hive partitions.

Knows nothing of what is in the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from batchinfer.errors import NotFoundError, SourceError
from batchinfer.job.source_spec import SourceBase
from batchinfer.sources.base import Partitions, Slice, Source
from batchinfer.sources.records import did_you_mean
from batchinfer.storage import escape, join
from batchinfer.storage.base import Entry, Storage

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Input:
    """One input file and the hive columns in its path below the root the job names."""

    entry: Entry
    partitions: Partitions


def find_inputs(spec: SourceBase, storage: Storage) -> list[Input]:
    """The files under `spec.path` in the order listed there, sorted within each, every file once.

    The root of a directory is itself, of a glob its part before the first wildcard; a file has no part below a root.
    Raises SourceError where a path or glob names nothing.
    """
    found: dict[str, Input] = {}
    for path in [spec.path] if isinstance(spec.path, str) else spec.path:
        for item in _under(path, storage):
            found.setdefault(item.entry.uri, item)
    return list(found.values())


def cut_inputs(inputs: Sequence[Input], source: Source, target_bytes: int) -> Iterator[Slice]:
    """The slices of all inputs in order, cut as they are asked for. SourceError if there is not one record."""
    none_yet = True
    for item in inputs:
        for piece in source.slices(item.entry, target_bytes, item.partitions):
            none_yet = False
            yield piece
    if none_yet:
        where = inputs[0].entry.uri if inputs else "source.path"
        raise SourceError(where, f"no records: {_files(len(inputs))} empty")


def _files(count: int) -> str:
    return "the only file is" if count == 1 else f"all {count} files are"


def _under(path: str, storage: Storage) -> list[Input]:
    try:
        return [Input(storage.stat(path), ())]
    except NotFoundError:
        if _WILD & set(path):
            return _matching(path, storage)
        return _inside(path, storage)


def _matching(pattern: str, storage: Storage) -> list[Input]:
    wild = min(pattern.index(sign) for sign in _WILD & set(pattern))
    root = pattern[: pattern.rfind("/", 0, wild) + 1]
    inputs = [Input(entry, _partitions(entry.uri, root)) for entry in storage.list(pattern)]
    if not inputs:
        raise SourceError(pattern, "no file matches; check source.path")
    return inputs


def _inside(directory: str, storage: Storage) -> list[Input]:
    root = directory.rstrip("/") + "/"
    inputs = [Input(e, _partitions(e.uri, root)) for e in storage.list(escape(root)) if e.uri.startswith(root)]
    if not inputs:
        raise SourceError(directory, _nothing_there(directory, storage))
    return inputs


def _nothing_there(path: str, storage: Storage) -> str:
    parent, _, name = path.rstrip("/").rpartition("/")
    pattern = join(escape(parent), "*") if parent or path.startswith("/") else "*"
    near = did_you_mean(name, (entry.uri.rpartition("/")[2] for entry in storage.list(pattern)))
    return f"no such file, nor a directory with data files in it{near}"


def _partitions(uri: str, root: str) -> Partitions:
    """`name=text` directories below the root; %XX in the text is decoded, as hive writes it."""
    directories = uri.removeprefix(root).split("/")[:-1]
    named = [part.partition("=") for part in directories if not part.startswith("=") and "=" in part]
    partitions = tuple((unquote(name), unquote(text)) for name, _, text in named)
    _check_distinct(uri, [name for name, _ in partitions])
    return partitions


def _check_distinct(uri: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SourceError(uri, f'the path gives "{name}" twice; let source.path begin below the first')
        seen.add(name)
