"""Every error the product raises on purpose, and the exit code each one means.

    BatchInferError                 1   anything below; `str(error)` is the line a user reads
    |-- SpecError                   2   the job file, an overlay or a flag is wrong; holds every Fault
    |-- ConflictError               2   the output directory belongs to another plan, or to another run
    |-- SourceError                 2   an input file cannot be read at all (missing, corrupt, changed); holds its uri
    |-- RestoreError                2   a checkpoint or tokenizer cannot be used; holds every mismatch
    |-- StorageError                1   a storage operation failed for good; holds its uri
    |   |-- NotFoundError           1   there is nothing under that uri
    |   |-- TransientStorageError   1   may work if tried again (time-out, 503, reset)
    |   `-- OutOfSpaceError         1   the disk (or quota) is full
    |-- EngineError                 1   the device could not run a batch (out of memory at the smallest bucket, ...)
    |-- UnitsFailedError            1   some units failed after their retries; the others are committed
    |-- VerifyError                 1   committed output does not match its ledger
    |-- ErrorBudgetError            3   more rejections than `errors.max_rate` allows
    `-- InterruptedRun             75   SIGINT or SIGTERM; run again to resume

A fault of one row is not an exception that travels: it becomes a `Rejection` (see record.py).
`RejectRow` is how a task says so from inside user code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_JOB = 2
EXIT_ERROR_BUDGET = 3
EXIT_INTERRUPTED = 75


class BatchInferError(Exception):
    """What happened, where, and what to do, in one line."""

    exit_code = EXIT_FAILED


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a job: `where` is file:line:column, a flag, or an overlay; `field` the dotted key."""

    where: str
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.field, self.message) if part)


class SpecError(BatchInferError):
    """The job cannot be understood. `faults` holds all of them, one line each."""

    exit_code = EXIT_BAD_JOB

    def __init__(self, faults: Sequence[Fault]):
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class ConflictError(BatchInferError):
    """The output directory already holds something this run must not mix with (promise P5)."""

    exit_code = EXIT_BAD_JOB


class _PlacedError(BatchInferError):
    def __init__(self, uri: str, message: str):
        self.uri = uri
        self.message = message
        super().__init__(f"{uri}: {message}")


class SourceError(_PlacedError):
    """An input file as a whole cannot be used."""

    exit_code = EXIT_BAD_JOB


class RestoreError(BatchInferError):
    """A checkpoint (or its tokenizer) cannot be used; every mismatch is in the message, one per line."""

    exit_code = EXIT_BAD_JOB

    def __init__(self, path: str, problems: Sequence[str]):
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{path}: {problem}" for problem in self.problems))


class StorageError(_PlacedError):
    """A storage operation failed and trying again will not help."""


class NotFoundError(StorageError):
    """There is nothing under that uri."""


class TransientStorageError(StorageError):
    """The operation may work when tried again."""


class OutOfSpaceError(StorageError):
    """No room left where the output goes."""


class EngineError(BatchInferError):
    """The device could not run a batch."""


class UnitsFailedError(BatchInferError):
    """Some units failed for good; what the others made is committed."""


class VerifyError(BatchInferError):
    """Committed output does not match its ledger."""


class ErrorBudgetError(BatchInferError):
    """Too many rejections."""

    exit_code = EXIT_ERROR_BUDGET


class InterruptedRun(BatchInferError):
    """Asked to stop (SIGINT, SIGTERM); everything committed so far stays."""

    exit_code = EXIT_INTERRUPTED


class RejectRow(Exception):
    """Raised by a task's `prepare` or `finish` to reject the one record at hand.

    `reason` is a short machine word ("missing_field", "too_long"); `message` is for people.
    """

    def __init__(self, reason: str, message: str):
        self.reason = reason
        super().__init__(message)
