"""What a sink is: it turns Arrow tables of predictions into one part file whose bytes depend on the rows alone.

Knows nothing of models or of commits: it writes to a stream somebody else opened, names and publishes.
"""

from __future__ import annotations

from typing import BinaryIO, Protocol

import pyarrow as pa


class PartWriter(Protocol):
    """Writes one part. The same tables, cut anywhere, give the same bytes."""

    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None:
        """Writes what is still buffered and the footer; does not close the stream."""
        ...


class Sink(Protocol):
    """One output format, bound to its part of the job."""

    suffix: str
    """File name ending, dot included: ".parquet", ".jsonl.gz"."""

    def open_part(self, stream: BinaryIO, schema: pa.Schema) -> PartWriter:
        """A writer onto `stream` for tables of this schema (a part without rows is a valid empty file)."""
        ...

    def check(self, schema: pa.Schema) -> list[str]:
        """What in this schema the format cannot hold, one line each; asked before any work is done."""
        ...
