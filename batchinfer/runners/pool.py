"""Runs units of one job in a few threads of this process: tries again what may pass, watches the error budget.

Knows nothing of how units get here (Beam, or something else), nor of rows.
"""

from __future__ import annotations

import logging
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from batchinfer.errors import (
    BatchInferError,
    ConflictError,
    ErrorBudgetError,
    InterruptedRun,
    OutOfSpaceError,
    TransientStorageError,
)
from batchinfer.planner import Unit
from batchinfer.report.metrics import RunCounters
from batchinfer.unit import Work, run_unit

BACKOFF_SECONDS_MAX = 30.0
_HOPELESS = (OutOfSpaceError, ConflictError)
"""The other units would fail the same way: the run ends."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a unit ended: committed, failed (`error` says why), or dropped because the run ends (both empty)."""

    unit: int
    committed: bool = False
    error: str = ""


class UnitPool:
    """`run.units_in_flight` threads, each running one unit at a time."""

    def __init__(self, work: Work):
        self.work = work
        self.width = work.spec.run.units_in_flight
        self._threads = ThreadPoolExecutor(self.width, thread_name_prefix="unit")

    def submit(self, unit: int) -> Future[Outcome]:
        return self._threads.submit(self._run, self.work.plan.units[unit])

    def close(self) -> None:
        """Waits for units in hand; those not begun are dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, unit: Unit) -> Outcome:
        if self.work.halt.asked:
            return Outcome(unit.id)
        try:
            if not self.work.ledger.is_committed(unit.id):  # Beam may hand out a bundle more than once
                self._try(unit)
            return Outcome(unit.id, committed=True)
        except InterruptedRun:
            return Outcome(unit.id)
        except BatchInferError as error:
            return self._failed(unit, error, str(error))
        except Exception as error:  # noqa: BLE001 - user code may raise anything: the unit fails, the others go on
            log.error("unit %d failed:\n%s", unit.id, traceback.format_exc())
            return self._failed(unit, error, f"{type(error).__name__}: {error}")

    def _try(self, unit: Unit) -> None:
        """Runs the unit, again after passing faults, waiting a little longer each time."""
        errors = self.work.spec.errors
        for retry in range(errors.retries + 1):
            try:
                run_unit(unit, self.work)
                self.work.meter.add(RunCounters(units_done=1, bytes_read=unit.size_bytes))
                self._check_budget()
                return
            except TransientStorageError as error:
                if retry == errors.retries:
                    raise
                self.work.meter.add(RunCounters(units_retried=1))
                log.warning("unit %d, try %d: %s; trying again", unit.id, retry + 1, error)
                if self.work.halt.wait(min(errors.backoff_seconds * 2**retry, BACKOFF_SECONDS_MAX)):
                    raise InterruptedRun(f"unit {unit.id} was dropped") from error

    def _failed(self, unit: Unit, error: Exception, line: str) -> Outcome:
        if isinstance(error, _HOPELESS):
            self.work.halt.ask(error)
        self.work.meter.add(RunCounters(units_failed=1))
        log.error("unit %d failed: %s", unit.id, line)
        return Outcome(unit.id, error=line)

    def _check_budget(self) -> None:
        counters = self.work.meter.snapshot()
        if counters.rows_in < self.work.spec.errors.min_rows:
            return
        error = budget_error(counters, self.work.spec.errors.max_rate, self.work.ledger.output)
        if error is not None:
            self.work.halt.ask(error)


def budget_error(counters: RunCounters, rate_max: float, output: str) -> ErrorBudgetError | None:
    """The error to end with if there are more rejections than the job allows."""
    if counters.rejections <= rate_max * counters.rows_in:
        return None
    reasons = ", ".join(f"{name} {count:,}" for name, count in counters.rejections_by_reason.items() if count)
    return ErrorBudgetError(
        f"{counters.rejections:,} of {counters.rows_in:,} records rejected "
        f"({counters.rejections / counters.rows_in:.1%}: {reasons}); errors.max_rate allows {rate_max:.1%}. "
        f"See them with ./launch.sh errors {output}, or raise errors.max_rate and run again to go on"
    )
