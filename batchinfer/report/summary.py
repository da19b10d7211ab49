"""What a run was, in the end: the report that `batchinfer.run` returns, and the lines that people read.

Knows nothing of how a run is done; it is handed numbers and shows them.
"""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from batchinfer.report import human

NOTES_MAX = 6
REASONS_MAX = 5


@dataclass(frozen=True, slots=True)
class RunReport:
    """The result of a run. None means: not measured, or nothing to measure it on.

    `rows_in`, `predictions`, `rejections`, `files`, `output_bytes`: of the whole output, earlier runs included.
    Times, rates and shares: of this run alone; `wall_seconds` includes `startup_seconds` (until the first batch ran)
    and `compile_seconds`; shares are 0..1. `units` counts all, `units_reused` those committed before this run.
    `files`: prediction files, relative to `output`, in order.
    """

    name: str
    output: str
    state: Literal["done", "nothing to do"]
    fingerprint: str
    rows_in: int
    predictions: int
    rejections: int
    wall_seconds: float
    units: int
    units_reused: int
    files: tuple[str, ...]
    output_bytes: int
    rejections_by_reason: Mapping[str, int] = field(default_factory=dict)
    startup_seconds: float | None = None
    rows_per_second: float | None = None
    tokens_per_second: float | None = None
    padding_share: float | None = None
    compilations: int | None = None
    compile_seconds: float = 0.0
    cache_hits: int = 0
    device_idle_share: float | None = None
    peak_memory_bytes: int | None = None
    devices: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self) | {"files": list(self.files), "notes": list(self.notes)}


def render(report: RunReport, python: str = ".venv/bin/python") -> str:
    """The end-of-run summary: at most 20 lines, ending with where the output is and how to look at it.

    `python`: the interpreter that the printed command names.
    """
    facts = [*_counted(report), *_measured(report), *_noted(report), *_output(report, python)]
    width = max(len(label) for label, _ in facts)
    head = "nothing to do, everything was done before" if report.state == "nothing to do" else "done"
    return "\n".join([f"{report.name}: {head}", *(f"  {label:<{width}}  {text}" for label, text in facts)])


Facts = Iterable[tuple[str, str]]


def _counted(report: RunReport) -> Facts:
    yield (
        "rows",
        f"{report.rows_in:,} in, {report.predictions:,} predicted, {report.rejections:,} rejected{_reasons(report)}",
    )
    reused = f", {report.units_reused:,} of them by earlier runs" if report.units_reused else ""
    yield "units", f"{report.units:,} done{reused}"


def _reasons(report: RunReport) -> str:
    ranked = sorted(report.rejections_by_reason.items(), key=lambda item: (-item[1], item[0]))
    if not ranked:
        return ""
    named = [f"{reason} {count:,}" for reason, count in ranked[:REASONS_MAX]]
    if rest := sum(count for _, count in ranked[REASONS_MAX:]):
        named.append(f"other {rest:,}")
    return f" ({', '.join(named)})"


def _measured(report: RunReport) -> Facts:
    startup = "" if report.startup_seconds is None else f", {human.duration(report.startup_seconds)} of it start-up"
    yield "time", f"{human.duration(report.wall_seconds)}{startup}"
    if report.rows_per_second is not None:
        tokens = report.tokens_per_second
        yield (
            "speed",
            f"{human.count(report.rows_per_second)} rows/s"
            + ("" if tokens is None else f", {human.count(tokens)} tokens/s"),
        )
    if report.padding_share is not None:
        yield "padding", f"{human.percent(report.padding_share)} of the tokens"
    if report.compilations is not None:
        cached = f", {report.cache_hits:,} from the cache" if report.cache_hits else ""
        programs = human.plural(report.compilations, "program")
        yield "compiled", f"{programs} in {human.duration(report.compile_seconds)}{cached}"
    if report.devices:
        idle = report.device_idle_share
        yield "devices", report.devices + ("" if idle is None else f", idle {human.percent(idle)} of the time")
    if report.peak_memory_bytes is not None:
        yield "memory", f"{human.size(report.peak_memory_bytes)} at the peak"


def _noted(report: RunReport) -> Facts:
    for note in report.notes[:NOTES_MAX]:
        yield "note", note
    if len(report.notes) > NOTES_MAX:
        yield "note", f"and {human.plural(len(report.notes) - NOTES_MAX, 'more note')} in the run's record"


def _output(report: RunReport, python: str) -> Facts:
    files = human.plural(len(report.files), "file")
    yield "plan", report.fingerprint
    yield "output", f"{report.output}: {files}, {human.size(report.output_bytes)}"
    if report.rejections:
        yield "rejected", f"./launch.sh errors {shlex.quote(report.output)}"
    if report.files:
        yield "look", look_command(report.output, report.files[0], python)


def look_command(output: str, first: str, python: str) -> str:
    """The shell command that shows the first predictions; `first` is a prediction file, relative to `output`."""
    file = posixpath.join(output, first)
    quoted = shlex.quote(file)
    if first.endswith(".parquet"):
        # Of the directory rather than the first file, which may have no rows. Plain discovery fails there once
        # rejected/ holds JSON lines; names with an underscore are skipped by default, but not beside other prefixes.
        dataset = f'ds.dataset({json.dumps(output)}, ignore_prefixes=["_", "rejected"])'
        return f"{python} -c {shlex.quote(f'import pyarrow.dataset as ds; print({dataset}.head(5))')}"
    if first.endswith(".jsonl"):
        return f"head -n 2 {quoted}"
    if first.endswith(".jsonl.gz"):
        return f"gzip -dc {quoted} | head -n 2"
    opened = f"gzip.open({json.dumps(file)})" if first.endswith(".gz") else f'open({json.dumps(file)}, "rb")'
    if first.endswith(".jsonl.zst"):
        code = f'import zstandard; f = zstandard.open({json.dumps(file)}, "rt"); print(f.readline(), f.readline())'
    else:
        code = (
            f"import gzip; from batchinfer.sources.tfrecord import decode_example; f = {opened}; "
            'print(decode_example(f.read(int.from_bytes(f.read(12)[:8], "little"))))'
        )
    return f"{python} -c {shlex.quote(code)}"
