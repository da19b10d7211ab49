"""What a run shows while it goes: exact lines, by a clock the test sets."""

from __future__ import annotations

import io
import threading
from datetime import UTC, datetime, timedelta

import pytest
from rich.text import Text

from batchinfer.report.metrics import RunCounters
from batchinfer.report.pace import Clock, Pace, Totals
from batchinfer.report.progress import Bar, Lines, Progress, QuietProgress, ShownProgress, Ticker, open_progress

START = datetime(2026, 11, 23, 8, 44, tzinfo=UTC)
NEVER = 3600.0


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> Clock:
        return Clock(elapsed=lambda: self.seconds, now=lambda: START + timedelta(seconds=self.seconds))


class Pipe(io.StringIO):
    """A stream whose reader goes away."""

    broken = False

    def write(self, text: str) -> int:
        if self.broken:
            raise BrokenPipeError
        return super().write(text)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_progress(
    hand: HandClock, stream: io.StringIO, totals: Totals, start: RunCounters | None = None
) -> ShownProgress:
    pace = Pace(totals, start or RunCounters(), hand.clock())
    return ShownProgress(pace, Lines("embed", stream, hand.clock()), NEVER)


def counted(rows: int, tokens: int = 0, units: int = 0, rejected: int = 0, read: int = 0) -> RunCounters:
    return RunCounters(rows_in=rows, tokens=tokens, units_done=units, rejections=rejected, bytes_read=read)


def test_a_line_says_how_far_how_fast_and_how_long() -> None:
    hand, stream = HandClock(), io.StringIO()
    progress = lines_progress(hand, stream, Totals(units=10, rows=20_000))
    hand.seconds = 2
    progress.update(counted(1024, tokens=26_000, units=1))
    progress.tick()
    assert stream.getvalue() == (
        "2026-11-23T08:44:02Z embed rows 1,024/20,000 (5%) 512 rows/s 13,000 tokens/s "
        "units 1/10 rejected 0 eta 0:00:37\n"
    )
    progress.close()


def test_before_anything_is_done_the_end_is_unknown() -> None:
    hand, stream = HandClock(), io.StringIO()
    progress = lines_progress(hand, stream, Totals(units=10, rows=20_000))
    progress.tick()
    progress.close()
    assert stream.getvalue().splitlines()[0] == (
        "2026-11-23T08:44:00Z embed rows 0/20,000 (0%) 0 rows/s units 0/10 rejected 0 eta ?"
    )


def test_the_rate_is_that_of_the_last_half_minute_and_at_the_end_that_of_the_run() -> None:
    hand, stream = HandClock(), io.StringIO()
    progress = lines_progress(hand, stream, Totals(units=2, rows=10_000))
    for seconds, rows in ((10, 1000), (20, 2000), (30, 3000), (40, 5000), (50, 7000), (60, 9000)):
        hand.seconds = seconds
        progress.update(counted(rows))
        progress.tick()
    assert [line.split(" rows/s")[0].split()[-1] for line in stream.getvalue().splitlines()] == (
        ["100", "100", "100", "133", "167", "200"]
    )
    hand.seconds = 80
    progress.update(counted(10_000, units=2, rejected=3))
    progress.close()
    assert stream.getvalue().splitlines()[-1] == (
        "2026-11-23T08:45:20Z embed rows 10,000/10,000 (100%) 125 rows/s units 2/2 rejected 3 after 0:01:20"
    )


def test_a_stalled_run_guesses_its_end_from_the_whole_run() -> None:
    hand = HandClock()
    pace = Pace(Totals(units=4, rows=400), RunCounters(), hand.clock())
    for hand.seconds in (10, 20, 40, 60, 100):
        reading = pace.read(counted(100))
    assert (reading.rows_per_second, reading.eta_seconds) == (0, 300)


def test_rows_taken_back_by_a_dropped_unit_are_no_negative_speed() -> None:
    hand = HandClock()
    pace = Pace(Totals(units=4, rows=400), counted(100, tokens=50), hand.clock())
    hand.seconds = 1
    reading = pace.read(counted(40))
    assert (reading.rows_per_second, reading.tokens_per_second, reading.eta_seconds) == (0, 0, None)


def test_what_earlier_runs_did_counts_as_done_but_not_as_speed() -> None:
    hand, stream = HandClock(), io.StringIO()
    start = RunCounters(rows_in=500, units_reused=5)
    progress = lines_progress(hand, stream, Totals(units=10, rows=1000), start)
    hand.seconds = 10
    progress.update(start + counted(100, units=1))
    progress.tick()
    assert stream.getvalue() == (
        "2026-11-23T08:44:10Z embed rows 600/1,000 (60%) 10 rows/s units 6/10 rejected 0 eta 0:00:40\n"
    )
    progress.close()


@pytest.mark.parametrize(
    ("totals", "text"),
    [(Totals(units=4, size_bytes=2000), "(25%)"), (Totals(units=4), "(50%)"), (Totals(units=0, rows=0), "(100%)")],
)
def test_where_rows_are_unknown_bytes_or_units_tell_how_far(totals: Totals, text: str) -> None:
    hand, stream = HandClock(), io.StringIO()
    progress = lines_progress(hand, stream, totals)
    hand.seconds = 1
    progress.update(counted(7, units=2, read=500))
    progress.tick()
    assert f"embed rows 7{'/0' if totals.rows == 0 else ''} {text} 7 rows/s" in stream.getvalue()
    progress.close()


def test_messages_of_others_stand_among_the_lines_and_nothing_comes_after_close() -> None:
    hand, stream = HandClock(), io.StringIO()
    progress = lines_progress(hand, stream, Totals(units=1, rows=1))
    progress.log("unit 0 is tried again")
    assert stream.getvalue() == "2026-11-23T08:44:00Z embed unit 0 is tried again\n"
    progress.close()
    shown = stream.getvalue()
    progress.update(counted(1))
    progress.tick()
    progress.log("too late")
    progress.close()
    assert stream.getvalue() == shown


@pytest.mark.parametrize("display", ["lines", "bar"])
def test_a_broken_or_closed_stream_does_not_break_the_run(display: str) -> None:
    for fault in ("broken", "closed"):
        stream = Pipe()
        pace = Pace(Totals(units=1, rows=1), RunCounters(), Clock())
        shown = Lines("embed", stream, Clock()) if display == "lines" else Bar("embed", stream, width=80)
        progress = ShownProgress(pace, shown, NEVER)
        progress.tick()
        if fault == "broken":
            stream.broken = True
        else:
            stream.close()
        progress.tick()
        progress.log("hello")
        progress.close()


def test_the_bar_shows_two_lines_and_messages_above_them() -> None:
    hand, stream = HandClock(), Terminal()
    pace = Pace(Totals(units=10, rows=20_000), RunCounters(), hand.clock())
    progress = ShownProgress(pace, Bar("embed", stream, width=80), NEVER)
    hand.seconds = 2
    progress.update(counted(10_000, tokens=26_000, units=5, rejected=1))
    progress.log("[buckets] chosen: 16, 32")
    stream.truncate(0)
    stream.seek(0)
    progress.tick()
    plain = [line.rstrip() for line in Text.from_ansi(stream.getvalue()).plain.splitlines()]
    assert plain == [
        "embed ━━━━━━━━━━━━━━━╺━━━━━━━━━━━━━━ 50% 10,000/20,000 rows eta 0:00:02",
        "5,000 rows/s 13,000 tokens/s units 5/10 rejected 1",
    ]
    progress.log("[red]not markup")
    assert "[red]not markup\n" in Text.from_ansi(stream.getvalue()).plain.replace("\r", "\n")
    progress.close()
    assert "after 0:00:02" in stream.getvalue()


def kind_of(progress: Progress) -> str:
    progress.close()
    match progress:
        case QuietProgress():
            return "quiet"
        case ShownProgress():
            return type(progress._display).__name__
        case _:
            return "unknown"


def test_the_display_fits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert kind_of(open_progress("embed", Totals(1), 10, stream=Terminal())) == "Bar"
    assert kind_of(open_progress("embed", Totals(1), 10, stream=io.StringIO())) == "Lines"
    assert kind_of(open_progress("embed", Totals(1), 10, stream=Terminal(), quiet=True)) == "quiet"
    monkeypatch.setenv("TERM", "dumb")
    assert kind_of(open_progress("embed", Totals(1), 10, stream=Terminal())) == "Lines"
    monkeypatch.setattr("sys.stderr", None)
    assert kind_of(open_progress("embed", Totals(1), 10)) == "quiet"


def test_quiet_progress_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = open_progress("embed", Totals(1), 10, quiet=True)
    progress.update(counted(1))
    progress.log("hello")
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_a_ticker_acts_until_it_is_stopped() -> None:
    acted = threading.Semaphore(0)
    ticker = Ticker(0.001, acted.release)
    assert all(acted.acquire(timeout=10) for _ in range(3))
    ticker.stop()
    while acted.acquire(blocking=False):
        pass
    assert not acted.acquire(timeout=0.02)


def test_lines_come_by_themselves() -> None:
    came = threading.Event()

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            came.set()
            return super().write(text)

    progress = open_progress("embed", Totals(units=1, rows=5), 0.001, stream=Watched())
    assert came.wait(10)
    progress.close()
