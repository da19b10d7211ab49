"""The only place that knows a URL scheme: a uri goes in, the storage that serves it comes out."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batchinfer.errors import Fault, SpecError
from batchinfer.storage.base import Entry, Storage
from batchinfer.storage.local import LocalStorage
from batchinfer.storage.retry import RetryingStorage

__all__ = ["Entry", "Storage", "escape", "join", "storage_for", "wrapped"]

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://")


_wrappers: list[Callable[[Storage], Storage]] = []


@contextmanager
def wrapped(wrapper: Callable[[Storage], Storage]) -> Iterator[None]:
    """While the block runs every storage handed out is wrapped: how tests make operations fail."""
    _wrappers.append(wrapper)
    try:
        yield
    finally:
        _wrappers.remove(wrapper)


def storage_for(uri: str) -> Storage:
    """The storage behind a uri. Raises SpecError for a scheme nobody serves."""
    match = _SCHEME.match(uri)
    scheme = match.group(1) if match else "file"
    if scheme != "file":
        raise SpecError([Fault(uri, "", f'scheme "{scheme}" is not served; give a local path or a file:// uri')])
    storage = functools.reduce(lambda inner, wrapper: wrapper(inner), _wrappers, LocalStorage())
    return RetryingStorage(storage)


def escape(uri: str) -> str:
    """`uri` as a pattern that lists just itself: wildcards in it lose their meaning."""
    return re.sub(r"([*?[])", r"[\1]", uri)


def join(directory: str, name: str) -> str:
    """`directory/name`, whatever the scheme."""
    return f"{directory.rstrip('/')}/{name}"
