"""The only place that knows a URL scheme: a uri goes in, the storage that serves it comes out."""

from __future__ import annotations

import re

from batchinfer.errors import StorageError
from batchinfer.storage.base import Entry, Storage
from batchinfer.storage.local import LocalStorage

__all__ = ["Entry", "Storage", "escape", "join", "storage_for"]

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://")


def storage_for(uri: str) -> Storage:
    """The storage behind a uri. Raises StorageError for a scheme nobody serves."""
    match = _SCHEME.match(uri)
    scheme = match.group(1) if match else "file"
    if scheme != "file":
        raise StorageError(uri, f'scheme "{scheme}" is not served; give a local path or a file:// uri')
    return LocalStorage()


def escape(uri: str) -> str:
    """`uri` as a pattern that lists just itself: wildcards in it lose their meaning."""
    return re.sub(r"([*?[])", r"[\1]", uri)


def join(directory: str, name: str) -> str:
    """`directory/name`, whatever the scheme."""
    return f"{directory.rstrip('/')}/{name}"
