"""Numbers as people read them: thousands separators, 3 min 20 s, 512 MiB."""

from __future__ import annotations


def count(number: float) -> str:
    """1,024; below 10 with one decimal unless it is whole: 2.5, 3."""
    if number < 10 and number != int(number):
        return f"{number:.1f}"
    return f"{number:,.0f}"


def plural(number: int, thing: str) -> str:
    """1 file, 2 files, 1,024 files."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def duration(seconds: float) -> str:
    """0.02 s, 1.2 s, 45 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 0.995:
        return f"{seconds:.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def clock(seconds: float) -> str:
    """0:00:37, 25:00:00."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def size(size_bytes: float) -> str:
    """512 B, 1.5 KiB, 512 MiB, 2.0 GiB."""
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    units = iter(("KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    size_bytes /= 1024
    while size_bytes >= 1023.5 and unit != "TiB":
        unit = next(units)
        size_bytes /= 1024
    return f"{size_bytes:.1f} {unit}" if size_bytes < 9.95 else f"{size_bytes:,.0f} {unit}"


def percent(share: float) -> str:
    """4.5 %, 100 %."""
    return f"{100 * share:.1f} %" if share < 0.9995 else f"{100 * share:.0f} %"
