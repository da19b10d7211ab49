"""Runs a job as `python -m batchinfer` does and prints, besides, when its first batch was done (seconds since 1970)."""

from __future__ import annotations

import sys
import time
from typing import Any

from batchinfer.cli import main
from batchinfer.engine.windows import Window

_batch_done = Window.batch_done
_seen: list[float] = []


def batch_done(window: Window, *arguments: Any) -> bool:
    _seen.append(time.time())
    return _batch_done(window, *arguments)


if __name__ == "__main__":
    Window.batch_done = batch_done  # type: ignore[method-assign]
    status = main(sys.argv[1:])
    print(f"first batch: {_seen[0]}")
    sys.exit(status)
