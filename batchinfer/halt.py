"""How a run is asked to end early, from a signal handler or from any thread."""

from __future__ import annotations

import threading

from batchinfer.errors import BatchInferError


class Halt:
    """Asks a run to end early, and remembers why; a unit in hand is dropped at its next window."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason: BatchInferError | None = None

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    def ask(self, reason: BatchInferError) -> None:
        """The first reason counts."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleeps, unless or until the run is asked to end; True if it is."""
        return self._event.wait(seconds)
