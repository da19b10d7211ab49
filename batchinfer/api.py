"""The product from Python: load a job, plan it, run it, look at what it made. The command line is a thin layer over it.

Nothing here starts jax until `run` or `dry_run` really has something to compute.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date as Date
from time import monotonic
from typing import Any

import orjson

from batchinfer.errors import ConflictError, VerifyError
from batchinfer.halt import Halt
from batchinfer.job import JobSpec, LoadedJob, Override, load, load_text
from batchinfer.ledger import Ledger, read_plan
from batchinfer.planner import Plan, make_plan
from batchinfer.report.manifest import report_of
from batchinfer.report.plan import Sample, Status
from batchinfer.report.summary import RunReport
from batchinfer.sources.only import Rows
from batchinfer.storage import escape, join, storage_for
from batchinfer.verify import verify_output

FULL_CHECK_BYTES_MAX = 4 << 30
"""Outputs up to this size are checksummed again when a finished job is run once more; larger ones by size."""


def load_job(
    path: str | os.PathLike[str],
    overrides: Mapping[str, Any] | Sequence[Override] = (),
    *,
    overlays: Sequence[str] = (),
    params: Mapping[str, str] | None = None,
    date: Date | None = None,
) -> LoadedJob:
    """Reads a job file. `overrides`: {"batching.max_rows": 64, ...}. Raises SpecError with every fault."""
    if isinstance(overrides, Mapping):
        overrides = [Override(field, value) for field, value in overrides.items()]
    return load(path, overrides, overlays=overlays, params=params, date=date)


def plan(job: JobSpec | LoadedJob, only: Rows | None = None) -> Plan:
    """The units of a job and its fingerprint. Raises SourceError, RestoreError or SpecError."""
    return make_plan(_loaded(job), only)


def run(
    job: JobSpec | LoadedJob, *, overwrite: bool = False, quiet: bool = False, halt: Halt | None = None
) -> RunReport:
    """Runs a job to its end, or what an earlier run left of it.

    `overwrite`: start anew if the output holds another plan's (or an older) output. `halt`: a `batchinfer.halt.Halt`
    by which another thread can ask the run to end early. Raises BatchInferError; see errors.py.
    """
    return _run(_loaded(job), None, overwrite=overwrite, quiet=quiet, halt=halt)


def _run(loaded: LoadedJob, only: Rows | None, *, overwrite: bool, quiet: bool, halt: Halt | None) -> RunReport:
    started = monotonic()
    ledger = _ledger(loaded.spec, plan(loaded, only))
    if not overwrite:
        ledger.check_owner()
        manifest = ledger.finished()
        if manifest is not None:
            return _again(ledger, manifest, started)
    ledger.check_writable()
    from batchinfer.runners.launch import Launch, launch  # starts jax

    return launch(loaded.spec, ledger, Launch(overwrite, quiet, only, started), halt or Halt())


def _again(ledger: Ledger, manifest: Mapping[str, Any], started: float) -> RunReport:
    """A finished output: nothing to do but to make sure of it."""
    size = sum(file["bytes"] for file in manifest["files"])
    problems = verify(ledger.output, full=size <= FULL_CHECK_BYTES_MAX)
    if problems:
        raise VerifyError("\n".join([*problems, f"{ledger.output}: use --overwrite to make the output again"]))
    return report_of(ledger.output, manifest, monotonic() - started, manifest["units"])


def dry_run(job: JobSpec | LoadedJob, rows: int = 5) -> list[Sample]:
    """The first records and what they would become; writes nothing."""
    loaded = _loaded(job)
    ledger = _ledger(loaded.spec, plan(loaded))
    from batchinfer.runners.launch import dry_run as first_rows

    return first_rows(loaded.spec, ledger, rows)


def verify(output: str, *, full: bool = True) -> list[str]:
    """What is wrong with a finished output, one line each; empty if nothing is. `full`: every byte is read again."""
    return verify_output(output, storage_for(output), full=full)


def status(output: str) -> Status:
    """How far an output is, from its ledger alone. Raises ConflictError if there is no plan."""
    ledger = open_output(output)
    commits = ledger.commits().values()
    reasons: dict[str, int] = {}
    for commit in commits:
        for reason, count in commit.rejections_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return Status(
        output=output,
        name=ledger.plan.name,
        fingerprint=ledger.fingerprint,
        finished=ledger.finished() is not None,
        units=len(ledger.plan.units),
        units_committed=len(commits),
        rows=ledger.plan.rows,
        rows_in=sum(commit.rows_in for commit in commits),
        predictions=sum(commit.predictions for commit in commits),
        rejections=sum(commit.rejections for commit in commits),
        rejections_by_reason=dict(sorted(reasons.items())),
    )


def open_output(output: str) -> Ledger:
    """The ledger of an existing output directory."""
    storage = storage_for(output)
    found = read_plan(output, storage)
    if found is None:
        raise ConflictError(f"{output}: there is no plan here; is it the output directory of a job?")
    return Ledger(output, storage, found)


def committed(planned: Plan, output: str) -> int | None:
    """How many of a plan's units an output has; None if the directory belongs to another plan."""
    ledger = Ledger(output, storage_for(output), planned)
    try:
        ledger.check_owner()
    except ConflictError:
        return None
    return len(ledger.commits())


def rejected_rows(output: str) -> Iterator[dict[str, Any]]:
    """The rejections of all committed units: key, uri, row, stage, error, message, record."""
    storage = storage_for(output)
    for entry in storage.list(join(escape(output), "rejected/part-*.jsonl")):
        with storage.open_read(entry.uri) as lines:
            yield from map(orjson.loads, lines)


def replay(
    output: str,
    overrides: Sequence[Override] = (),
    *,
    overwrite: bool = False,
    quiet: bool = False,
    halt: Halt | None = None,
) -> RunReport:
    """Runs only the rejected rows of `output` again, with `overrides` on its job, into `<output>-replay`.

    Rows are read from the input again, which must not have changed.
    """
    ledger = open_output(output)
    rows: dict[str, set[int]] = {}
    for row in rejected_rows(output):
        rows.setdefault(row["uri"], set()).add(row["row"])
    if not rows:
        raise ConflictError(f"{output}: nothing was rejected, there is nothing to replay")
    only = Rows({uri: frozenset(numbers) for uri, numbers in rows.items()})
    target = Override("sink.path", f"{output.rstrip('/')}-replay")
    loaded = load_text(ledger.plan.job, join(output, "_batchinfer/plan.json"), [target, *overrides])
    return _run(loaded, only, overwrite=overwrite, quiet=quiet, halt=halt)


def _loaded(job: JobSpec | LoadedJob) -> LoadedJob:
    return job if isinstance(job, LoadedJob) else LoadedJob(job, {}, {})


def _ledger(spec: JobSpec, planned: Plan) -> Ledger:
    return Ledger(spec.output_path, storage_for(spec.output_path), planned)
