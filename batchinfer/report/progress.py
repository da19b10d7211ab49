"""What a run shows while it goes: a live bar on a terminal, plain lines at a steady interval elsewhere, or nothing.

Whoever runs units hands over snapshots of the run's counters, from any thread; a thread here shows the latest one.
A stream that breaks (a closed pipe) ends the display, never the run. Knows nothing of units or engines.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from typing import IO, Protocol, TextIO, cast

from batchinfer.report import human
from batchinfer.report.metrics import RunCounters
from batchinfer.report.pace import Clock, Pace, Reading, Totals

BAR_SECONDS = 0.25
"""Between two pictures of the live bar."""


class Progress(Protocol):
    """What the run knows of its display. Every method may be called from any thread; after `close` all do nothing."""

    def update(self, counters: RunCounters) -> None:
        """The run's counters so far (a snapshot, not a difference)."""
        ...

    def log(self, line: str) -> None:
        """A message for people, shown above the bar or among the lines."""
        ...

    def close(self) -> None:
        """Shows the last state and ends the display."""
        ...


def open_progress(
    name: str,
    totals: Totals,
    every_seconds: float,
    start: RunCounters | None = None,
    quiet: bool = False,
    stream: TextIO | None = None,
) -> Progress:
    """The display that fits `stream` (default: stderr), already running.

    `every_seconds`: between two lines where there is no terminal. `start`: what earlier runs did, kept out of rates.
    """
    stream = stream or sys.stderr
    if quiet or stream is None:
        return QuietProgress()
    pace = Pace(totals, start or RunCounters(), Clock())
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return ShownProgress(pace, Bar(name, stream), BAR_SECONDS)
    return ShownProgress(pace, Lines(name, stream, Clock()), every_seconds)


# --- texts ----------------------------------------------------------------------------------------------------------


def _rows_text(reading: Reading) -> str:
    total = "" if reading.rows_total is None else f"/{reading.rows_total:,}"
    return f"{reading.rows:,}{total}"


def _speed_text(reading: Reading) -> str:
    # A model that reads no tokens has no tokens per second.
    tokens = f" {human.count(reading.tokens_per_second)} tokens/s" if reading.tokens_per_second else ""
    return f"{human.count(reading.rows_per_second)} rows/s{tokens}"


def _units_text(reading: Reading) -> str:
    return f"units {reading.units:,}/{reading.units_total:,} rejected {reading.rejected:,}"


def _eta_text(reading: Reading) -> str:
    return f"eta {'?' if reading.eta_seconds is None else human.clock(reading.eta_seconds)}"


# --- displays -------------------------------------------------------------------------------------------------------


class Display(Protocol):
    """How readings are shown; called by one thread at a time."""

    def show(self, reading: Reading) -> None: ...

    def log(self, line: str) -> None: ...

    def finish(self, reading: Reading) -> None:
        """The last reading; nothing is shown after it."""
        ...


class SurvivingStream(io.TextIOBase):
    """A text stream that swallows everything from its first fault on: a lost display must not stop a run."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._broken = False

    def isatty(self) -> bool:
        return not self._broken and self._stream.isatty()

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            action()
        except (OSError, ValueError):  # a broken pipe; a closed stream
            self._broken = True


class Lines:
    """One line per reading, for logs."""

    def __init__(self, name: str, stream: TextIO, clock: Clock):
        self._name = name
        self._stream = SurvivingStream(stream)
        self._clock = clock

    def show(self, reading: Reading) -> None:
        self.log(f"{self._state(reading)} {_eta_text(reading)}")

    def finish(self, reading: Reading) -> None:
        self.log(f"{self._state(reading)} after {human.clock(reading.elapsed_seconds)}")

    def log(self, line: str) -> None:
        self._stream.write(f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ} {self._name} {line}\n")
        self._stream.flush()

    def _state(self, reading: Reading) -> str:
        share = int(100 * reading.share)
        return f"rows {_rows_text(reading)} ({share}%) {_speed_text(reading)} {_units_text(reading)}"


class Bar:
    """Two lines kept up to date at the bottom of a terminal; messages scroll above them."""

    def __init__(self, name: str, stream: TextIO, width: int | None = None):
        # Imported here: cron and CI never need it, and every command would pay for it.
        from rich.console import Console
        from rich.live import Live

        self._name = name
        self._console = Console(file=cast(IO[str], SurvivingStream(stream)), force_terminal=True, width=width)
        # Prints of other code to this stream go above the bar; standard output may be a file and is left alone.
        redirect = stream is sys.stderr
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=redirect)
        self._live.start()

    def show(self, reading: Reading) -> None:
        self._draw(reading, _eta_text(reading))

    def finish(self, reading: Reading) -> None:
        self._draw(reading, f"after {human.clock(reading.elapsed_seconds)}")
        self._live.stop()

    def log(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self, reading: Reading, time_text: str) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = ProgressBar(total=1.0, completed=reading.share, width=30)
        first = Table.grid(padding=(0, 1))
        first.add_row(self._name, bar, f"{int(100 * reading.share)}%", f"{_rows_text(reading)} rows", time_text)
        second = Text(f"{_speed_text(reading)} {_units_text(reading)}", style="dim", no_wrap=True, overflow="ellipsis")
        self._live.update(Group(first, second), refresh=True)


# --- progress -------------------------------------------------------------------------------------------------------


class QuietProgress:
    """Shows nothing."""

    def update(self, counters: RunCounters) -> None:
        pass

    def log(self, line: str) -> None:
        pass

    def close(self) -> None:
        pass


class Ticker:
    """A thread that acts at a steady interval until `stop`, which waits for an action under way."""

    def __init__(self, every_seconds: float, action: Callable[[], None]):
        self._every_seconds = every_seconds
        self._action = action
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            self._action()


class ShownProgress:
    """A display that follows the latest counters at a steady interval."""

    def __init__(self, pace: Pace, display: Display, every_seconds: float):
        self._pace = pace
        self._display = display
        self._latest = pace.start
        self._closed = False
        self._lock = threading.Lock()  # one thread at a time at the display
        self._ticker = Ticker(every_seconds, self.tick)

    def update(self, counters: RunCounters) -> None:
        self._latest = counters

    def log(self, line: str) -> None:
        with self._lock:
            if not self._closed:
                self._display.log(line)

    def tick(self) -> None:
        """Shows the latest counters now."""
        with self._lock:
            if not self._closed:
                self._display.show(self._pace.read(self._latest))

    def close(self) -> None:
        self._ticker.stop()
        with self._lock:
            if not self._closed:
                self._closed = True
                self._display.finish(self._pace.read(self._latest, overall=True))
