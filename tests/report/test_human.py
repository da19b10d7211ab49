"""Numbers as people read them."""

from __future__ import annotations

import pytest

from batchinfer.report import human


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.994, "0.99 s"),
        (0.996, "1.0 s"),
        (1.24, "1.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (3_600_000, "1,000 h 0 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (512 << 20, "512 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (5000 << 40, "5,000 TiB"),
    ],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert human.size(size_bytes) == text


def test_counts_clocks_and_shares() -> None:
    assert [human.count(n) for n in (0, 2.54, 3.0, 12.6, 1_234_567)] == ["0", "2.5", "3", "13", "1,234,567"]
    assert [human.clock(s) for s in (37, 3725, 90_000)] == ["0:00:37", "1:02:05", "25:00:00"]
    assert [human.percent(s) for s in (0, 0.0449, 0.9994, 0.9996, 1)] == ["0.0 %", "4.5 %", "99.9 %", "100 %", "100 %"]
    assert [human.plural(n, "file") for n in (0, 1, 1024)] == ["0 files", "1 file", "1,024 files"]
