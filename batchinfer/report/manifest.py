"""The report of an output as its manifest has it, before anything was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchinfer.report.metrics import peak_memory_bytes
from batchinfer.report.summary import RunReport


def report_of(output: str, manifest: Mapping[str, Any], wall_seconds: float, units_reused: int) -> RunReport:
    """`units_reused`: units that were committed before this run began."""
    files = [file for file in manifest["files"] if not file["path"].startswith("rejected/")]
    twice = manifest["duplicate_keys"]
    return RunReport(
        name=manifest["name"],
        output=output,
        state="nothing to do" if units_reused == manifest["units"] else "done",
        fingerprint=manifest["fingerprint"],
        rows_in=manifest["rows_in"],
        predictions=manifest["predictions"],
        rejections=manifest["rejections"],
        rejections_by_reason=manifest["rejections_by_reason"],
        wall_seconds=wall_seconds,
        units=manifest["units"],
        units_reused=units_reused,
        files=tuple(file["path"] for file in files),
        output_bytes=sum(file["bytes"] for file in files),
        peak_memory_bytes=peak_memory_bytes(),
        notes=(f"{twice:,} records have a key that another of their unit has; all were kept",) if twice else (),
    )
