"""What `plan`, `status` and `--dry_run` print. Knows nothing of how any of it was found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from batchinfer.planner import Plan
from batchinfer.record import Record, Rejection, json_safe
from batchinfer.report import human

UNITS_SHOWN = 20
CHARS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Status:
    """How far an output is. `rows_in` and what follows count committed units; `rows` None: only reading can tell."""

    output: str
    name: str
    fingerprint: str
    finished: bool
    units: int
    units_committed: int
    rows: int | None
    rows_in: int
    predictions: int
    rejections: int
    rejections_by_reason: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One record of a dry run (None: it could not even be read) and what became of it."""

    record: Record | None
    result: Mapping[str, Any] | Rejection


def render_plan(plan: Plan, output: str, committed: int | None) -> str:
    """The resolved job, the units with rows and bytes, and what is already done."""
    lines = [plan.job.rstrip(), "", f"fingerprint {plan.fingerprint}"]
    rows = "rows not counted before reading" if plan.rows is None else f"{plan.rows:,} rows"
    lines.append(f"{human.plural(len(plan.units), 'unit')}, {rows}, {human.size(plan.size_bytes)} of input")
    for unit in plan.units[:UNITS_SHOWN]:
        first = unit.slices[0]
        more = f" and {len(unit.slices) - 1} more" if len(unit.slices) > 1 else ""
        count = "?" if unit.rows is None else f"{unit.rows:,}"
        lines.append(f"  {unit.id:05d}  {count:>10} rows  {human.size(unit.size_bytes):>10}  {first.uri}{more}")
    if len(plan.units) > UNITS_SHOWN:
        lines.append(f"  ... and {len(plan.units) - UNITS_SHOWN:,} more")
    if committed is None:
        lines.append(f"output {output} holds another plan: running would be refused without --overwrite")
    else:
        lines.append(f"output {output}: {committed:,} of {human.plural(len(plan.units), 'unit')} done")
    return "\n".join(lines)


def render_status(status: Status) -> str:
    state = "finished" if status.finished else "not finished; run the job again to go on"
    total = "" if status.rows is None else f" of {status.rows:,}"
    lines = [
        f"{status.name}: {state}",
        f"  units     {status.units_committed:,} of {status.units:,} committed",
        f"  rows      {status.rows_in:,}{total} in, {status.predictions:,} predicted, {status.rejections:,} rejected",
    ]
    lines += [f"            {reason} {count:,}" for reason, count in status.rejections_by_reason.items()]
    return "\n".join([*lines, f"  plan      {status.fingerprint}", f"  output    {status.output}"])


def render_samples(samples: Iterable[Sample]) -> str:
    """Each record beside what it became; long values are cut."""
    blocks = []
    for sample in samples:
        blocks.append(f"{_head(sample)}\n  -> {_became(sample.result)}")
    return "\n".join([*blocks, "dry run: nothing was written"])


def _head(sample: Sample) -> str:
    if sample.record is not None:
        return f"{sample.record.key}  {_short(sample.record.fields)}"
    return f"{sample.result.uri}:{sample.result.row}" if isinstance(sample.result, Rejection) else ""


def _became(result: Mapping[str, Any] | Rejection) -> str:
    if isinstance(result, Rejection):
        return f"rejected ({result.stage}, {result.error}): {result.message}"
    return _short(result)


def _short(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_cut(json.dumps(json_safe(item), ensure_ascii=False))}" for name, item in value.items())


def _cut(text: str) -> str:
    return text if len(text) <= CHARS_SHOWN else f"{text[:CHARS_SHOWN]}..."
