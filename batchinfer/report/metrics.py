"""What a run counts: frozen counters that add up, in any order, across units, threads and workers.

Also the facts about the process and the host that a run's record keeps. Knows nothing of how they are shown.
"""

from __future__ import annotations

import os
import platform
import resource
import socket
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class RunCounters:
    """Sums over units; `RunCounters()` is zero and `+` merges.

    `tokens` are the rows' own; `tokens_issued` what the devices were given, padding included.
    Seconds are busy seconds of that stage (several units at once may sum to more than the wall time);
    `device_wait_seconds`: the device had nothing to do.
    Units committed by an earlier run count in `units_reused`, not in `units_done`, and their rows in the totals.
    """

    rows_in: int = 0
    predictions: int = 0
    rejections: int = 0
    rejections_by_reason: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    tokens_issued: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    units_done: int = 0
    units_reused: int = 0
    units_failed: int = 0
    units_retried: int = 0
    read_seconds: float = 0.0
    prepare_seconds: float = 0.0
    device_seconds: float = 0.0
    device_wait_seconds: float = 0.0
    finish_seconds: float = 0.0
    write_seconds: float = 0.0

    def __add__(self, other: Self) -> Self:
        sums = {f.name: _merged(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return type(self)(**sums)

    @property
    def padding_share(self) -> float | None:
        """Padding among the tokens issued, 0..1; None where no tokens are counted."""
        return 1 - self.tokens / self.tokens_issued if self.tokens_issued else None

    @property
    def device_idle_share(self) -> float | None:
        """Time the device waited for work, 0..1 of its time; None where none was measured."""
        total = self.device_seconds + self.device_wait_seconds
        return self.device_wait_seconds / total if total else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, counters: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; counters it lacks are zero, counters unknown here are a TypeError."""
        return cls(**counters)


def _merged(mine: Any, theirs: Any) -> Any:
    match mine:
        case Mapping():
            sums = Counter(mine)
            sums.update(theirs)
            return {reason: count for reason, count in sorted(sums.items()) if count}
        case _:
            return mine + theirs


def peak_memory_bytes() -> int:
    """The most memory this process, or its largest ended child, has had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "apache-beam", "numpy", "pyarrow", "tokenizers")


def host_facts() -> dict[str, Any]:
    """Where a run ran: hostname, platform, usable cpus, and versions by package (None: not installed). JSON-safe."""
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return {
        "hostname": socket.gethostname(),
        "platform": platform.platform(),
        "cpus": cpus,
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    # importlib.metadata, because importing these packages would start them.
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
