"""A run from plan to report, in the process that was started: claims the output, has the units run, finalises.

Starts jax and Beam; whoever only plans or verifies does not come here. Knows nothing of rows.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from batchinfer.commit import Commit
from batchinfer.engine.counters import EngineCounters
from batchinfer.errors import InterruptedRun, StorageError, UnitsFailedError
from batchinfer.halt import Halt
from batchinfer.job.spec import JobSpec
from batchinfer.ledger import Ledger
from batchinfer.record import Record, Rejection
from batchinfer.report.manifest import report_of
from batchinfer.report.metrics import RunCounters, host_facts, peak_memory_bytes
from batchinfer.report.pace import Totals
from batchinfer.report.plan import Sample
from batchinfer.report.progress import Ticker, open_progress
from batchinfer.report.summary import RunReport
from batchinfer.runners.pool import Outcome, UnitPool, budget_error
from batchinfer.runners.worker import Ticket, adopt, dismiss, open_work
from batchinfer.sources.only import Rows
from batchinfer.tasks import Example
from batchinfer.unit import Work, finished

_PUMP_SECONDS = 0.2
_FAILURES_SHOWN = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """What a run was asked to do beyond the job itself."""

    overwrite: bool = False
    quiet: bool = False
    only: Rows | None = None
    started: float = 0.0
    """monotonic() when the command began."""


def launch(spec: JobSpec, ledger: Ledger, asked: Launch, halt: Halt) -> RunReport:
    """Runs every unit that is not committed yet, then finalises.

    Raises InterruptedRun, ErrorBudgetError, UnitsFailedError (what was committed stays), or what made it impossible
    to start.
    """
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    ticket = Ticket(run_id, spec.model_dump_json().encode(), asked.only)
    reused = {} if asked.overwrite else ledger.commits()
    pending = [unit.id for unit in ledger.plan.units if unit.id not in reused]
    if not pending:
        return _finish(spec, ledger, asked, _Ran(reused=reused))
    run_units, work = _start(spec, ledger, asked, halt)
    ready = monotonic()
    ledger.claim(overwrite=asked.overwrite)
    work.meter.add(_of_commits(reused))
    adopt(ticket, UnitPool(work))
    failed: list[Outcome] = []
    try:
        with _shown(work, asked.quiet):
            failed = run_units(pending, ticket, spec.run.beam_options)
    except UnitsFailedError:
        if halt.reason is None:  # else the runner gave up because the run was ending, and that is what to say
            raise
    finally:
        dismiss(ticket)
        ran = _Ran(reused, work, ready - asked.started, monotonic() - ready)
        _note_run(ledger, run_id, _run_row(spec, asked, ran, halt, failed))
    _raise_if_unfinished(ledger, halt, failed)
    return _finish(spec, ledger, asked, ran)


def _note_run(ledger: Ledger, run_id: str, row: Mapping[str, Any]) -> None:
    """Metrics only: where they cannot be written (a full disk), how the run itself ended is what counts."""
    try:
        ledger.note_run(run_id, row)
    except StorageError as error:
        log.warning("no metrics of this run were kept: %s", error)


@dataclass(frozen=True, slots=True)
class _Ran:
    """What a run did: earlier commits, and (if there was anything left to do) the work with its counters."""

    reused: Mapping[int, Commit]
    work: Work | None = None
    startup_seconds: float | None = None
    running_seconds: float = 0.0


def _start(spec: JobSpec, ledger: Ledger, asked: Launch, halt: Halt) -> tuple[Any, Work]:
    """Loads the model while Beam is imported: both take about a second."""
    with ThreadPoolExecutor(1, thread_name_prefix="open") as side:
        opening = side.submit(open_work, spec, ledger, asked.only, halt)
        from batchinfer.runners import beam

        beam.check_options(spec.run.beam_options)
        return beam.run_units, opening.result()


@contextmanager
def _shown(work: Work, quiet: bool) -> Iterator[None]:
    """Shows the run's progress while the block runs."""
    plan, start = work.plan, counters_of(work)
    totals = Totals(len(plan.units), plan.rows, plan.size_bytes)
    progress = open_progress(work.spec.name, totals, work.spec.run.progress_seconds, start, quiet)
    pump = Ticker(_PUMP_SECONDS, lambda: progress.update(_under_way(work, start.rows_in)))
    try:
        yield
    finally:
        pump.stop()
        progress.update(counters_of(work))
        progress.close()


def _under_way(work: Work, rows_before: int) -> RunCounters:
    """For the display: rows count when the device has done them, not when their whole window is written."""
    counters = counters_of(work)
    return replace(counters, rows_in=max(counters.rows_in, rows_before + work.engine.counters().rows))


def counters_of(work: Work) -> RunCounters:
    """Everything counted so far, the engine's counters among it."""
    engine = work.engine.counters()
    return work.meter.snapshot() + RunCounters(
        tokens=engine.tokens,
        tokens_issued=engine.tokens_issued,
        device_seconds=engine.busy_seconds,
        device_wait_seconds=engine.available_seconds - engine.busy_seconds,
    )


def _of_commits(commits: Mapping[int, Commit]) -> RunCounters:
    total = RunCounters(units_reused=len(commits))
    for commit in commits.values():
        total += RunCounters(
            rows_in=commit.rows_in,
            predictions=commit.predictions,
            rejections=commit.rejections,
            rejections_by_reason=commit.rejections_by_reason,
        )
    return total


def _raise_if_unfinished(ledger: Ledger, halt: Halt, failed: Sequence[Outcome]) -> None:
    units, done = len(ledger.plan.units), len(ledger.commits())
    if isinstance(halt.reason, InterruptedRun):
        raise InterruptedRun(
            f"{halt.reason}: {done} of {units} units are committed in {ledger.output}; run the same command to go on"
        )
    if halt.reason is not None:
        raise halt.reason
    if done < units:
        shown = "; ".join(f"unit {outcome.unit}: {outcome.error}" for outcome in failed[:_FAILURES_SHOWN])
        more = f"; and {len(failed) - _FAILURES_SHOWN} more" if len(failed) > _FAILURES_SHOWN else ""
        raise UnitsFailedError(
            f"{units - done} of {units} units failed, the others are committed in {ledger.output}: {shown}{more}. "
            "Mend the cause and run the same command to go on"
        )


def _finish(spec: JobSpec, ledger: Ledger, asked: Launch, ran: _Ran) -> RunReport:
    """The error budget once more, over all units; then manifest and marker."""
    error = budget_error(_of_commits(ledger.commits()), spec.errors.max_rate, ledger.output)
    if error is not None:
        raise error
    report = report_of(ledger.output, ledger.finalise(), monotonic() - asked.started, units_reused=len(ran.reused))
    return report if ran.work is None else _measured(report, ran, ran.work)


def _measured(report: RunReport, ran: _Ran, work: Work) -> RunReport:
    counters, engine = counters_of(work), work.engine.counters()
    rows = counters.rows_in - _of_commits(ran.reused).rows_in
    seconds = max(ran.running_seconds, 1e-9)
    return replace(
        report,
        startup_seconds=ran.startup_seconds,
        rows_per_second=rows / seconds,
        tokens_per_second=engine.tokens / seconds if engine.tokens else None,
        padding_share=engine.padding_share,
        compilations=engine.compilations,
        compile_seconds=engine.compile_seconds,
        cache_hits=engine.cache_hits,
        device_idle_share=engine.idle_share,
        devices=work.devices,
        notes=(*report.notes, *work.meter.notes, *_oom_notes(engine)),
    )


def _oom_notes(engine: EngineCounters) -> list[str]:
    notches = engine.oom_notches
    return [f"the device ran out of memory {notches} times; batches were halved"] if notches else []


def _run_row(spec: JobSpec, asked: Launch, ran: _Ran, halt: Halt, failed: Sequence[Outcome]) -> dict[str, Any]:
    """What `_batchinfer/runs/<run>.json` says: times, host, versions, metrics."""
    assert ran.work is not None
    engine = ran.work.engine.counters()
    return {
        "name": spec.name,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": monotonic() - asked.started,
        "startup_seconds": ran.startup_seconds,
        "running_seconds": ran.running_seconds,
        "ended_early": None if halt.reason is None else str(halt.reason),
        "failed_units": [asdict(outcome) for outcome in failed],
        "counters": counters_of(ran.work).to_json(),
        "batches": {str(bucket): count for bucket, count in engine.batches.items()},
        "compilations": engine.compilations,
        "compile_seconds": engine.compile_seconds,
        "cache_hits": engine.cache_hits,
        "oom_notches": engine.oom_notches,
        "peak_memory_bytes": peak_memory_bytes(),
        "devices": ran.work.devices,
        "notes": list(ran.work.meter.notes),
        "host": host_facts(),
    }


def dry_run(spec: JobSpec, ledger: Ledger, rows: int) -> list[Sample]:
    """Predictions of the first records, through the job's own model; writes nothing."""
    work = open_work(spec, ledger, None, Halt())
    try:
        pieces = (piece for unit in ledger.plan.units for piece in unit.slices)
        taken = list(itertools.islice((row for piece in pieces for row in work.source.read(piece)), rows))
        return _samples(taken, work)
    finally:
        work.engine.close()


def _samples(taken: Sequence[Record | Rejection], work: Work) -> list[Sample]:
    records = [row for row in taken if isinstance(row, Record)]
    prepared = list(zip(records, work.task.prepare(records), strict=True))
    ready = [(record, example) for record, example in prepared if isinstance(example, Example)]
    outputs = work.engine.submit([example for _, example in ready]).result()
    table, unfinished = finished(work.task, [record for record, _ in ready], outputs)
    refused = {(r.uri, r.row): r for r in (*taken, *(e for _, e in prepared), *unfinished) if isinstance(r, Rejection)}
    predictions = iter(table.to_pylist())
    return [
        Sample(row if isinstance(row, Record) else None, refused.get((row.uri, row.row)) or next(predictions))
        for row in taken
    ]
