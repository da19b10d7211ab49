"""The user's own task: a class that says, row by row, what goes into the model and what comes out.

Faults raised by the class for one record reject that record; they do not stop the job.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from batchinfer.errors import Fault, RejectRow, SpecError
from batchinfer.job.spec import CustomTask
from batchinfer.models.base import LoadedModel
from batchinfer.record import Record, Rejection, reject
from batchinfer.tasks.base import Arrays, Example
from batchinfer.user import RowTask

_ROW_FAULTS = (RejectRow, ValueError, TypeError, LookupError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class Custom:
    """A RowTask bound to a model."""

    user: RowTask
    model: LoadedModel

    @property
    def max_length(self) -> int | None:
        return self.user.max_length()

    @property
    def shares_rows(self) -> bool:
        return False

    def prepare(self, records: Sequence[Record]) -> list[Example | Rejection]:
        return [self._prepare(record) for record in records]

    def forward(self, params: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.user.forward(self.model.apply, params, inputs)

    def finish(self, records: Sequence[Record], outputs: Arrays) -> tuple[pa.Table, list[Rejection]]:
        results = [
            self._finish(record, {name: a[i] for name, a in outputs.items()}) for i, record in enumerate(records)
        ]
        rows = [result for result in results if not isinstance(result, Rejection)]
        rejections = [result for result in results if isinstance(result, Rejection)]
        return pa.Table.from_pylist(rows, schema=self.schema()), rejections  # type: ignore[arg-type]

    def schema(self) -> pa.Schema:
        return self.user.columns()

    def _prepare(self, record: Record) -> Example | Rejection:
        try:
            arrays = {name: np.asarray(array) for name, array in self.user.prepare(record.fields).items()}
        except _ROW_FAULTS as error:
            return reject(record, "prepare", _reason(error), _message(error))
        limit = self.max_length
        if limit is None:
            return Example(arrays, 0)
        length = len(arrays["tokens"]) if "tokens" in arrays else 0
        if not 1 <= length <= limit:
            return reject(record, "prepare", "bad_length", f"`tokens` has {length} elements, 1 to {limit} are due")
        return Example(arrays, length)

    def _finish(self, record: Record, outputs: Arrays) -> Mapping[str, Any] | Rejection:
        """The user's row, known to fit the schema, or a rejection."""
        try:
            row = self.user.finish(outputs)
            for field in self.schema():
                pa.scalar(row[field.name], field.type)
        except (*_ROW_FAULTS, pa.ArrowException) as error:
            return reject(record, "finish", _reason(error), _message(error))
        return row


def make_custom(spec: CustomTask, model: LoadedModel) -> Custom:
    """Imports and builds the user's class. Raises SpecError if that fails."""
    module, _, name = spec.module.partition(":")
    try:
        user = getattr(importlib.import_module(module), name)(**spec.kwargs)
    except (ImportError, AttributeError, TypeError) as error:
        raise SpecError([Fault("", "task.module", f"{spec.module}: {error}")]) from error
    if not isinstance(user, RowTask):
        raise SpecError([Fault("", "task.module", f"{spec.module}: must be a class derived from batchinfer.RowTask")])
    return Custom(user, model)


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, RejectRow) else type(error).__name__


def _message(error: Exception) -> str:
    return f"no such field: {error}" if isinstance(error, KeyError) else str(error)
