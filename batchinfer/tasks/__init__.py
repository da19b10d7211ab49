"""What a row means to a model, and what the model's numbers mean: one class per kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax
import numpy as np

from batchinfer.errors import Fault, SpecError
from batchinfer.job.spec import ClassifyTask, CustomTask, EmbedTask, ScorePairTask
from batchinfer.job.spec import Task as TaskSpec
from batchinfer.models.base import LoadedModel
from batchinfer.tasks.base import Example, Task
from batchinfer.tasks.classify import Classify, ClassifyTokens, ScorePair
from batchinfer.tasks.custom import make_custom
from batchinfer.tasks.embed import Embed
from batchinfer.tasks.texts import TextReader, text_limit

__all__ = ["Example", "Task", "head_of", "make_task"]


def head_of(spec: TaskSpec) -> Literal["none", "sequence", "token"]:
    """Which head the model must have for this task."""
    match spec:
        case ClassifyTask():
            return spec.level
        case ScorePairTask():
            return "sequence"
        case EmbedTask() | CustomTask():
            return "none"


def make_task(spec: TaskSpec, model: LoadedModel) -> Task:
    """The task of a job, bound to its model. Raises SpecError if the two do not fit."""
    match spec:
        case EmbedTask():
            reader = _reader((spec.text,), spec.max_length, spec.truncate, model)
            return Embed(spec, model, reader, _width(model))
        case ClassifyTask():
            return _classify(spec, model)
        case ScorePairTask():
            return ScorePair(spec, model, _reader((spec.text, spec.text_pair), spec.max_length, spec.truncate, model))
        case CustomTask():
            return make_custom(spec, model)


def _reader(fields: tuple[str, ...], wanted: int | None, truncate: bool, model: LoadedModel) -> TextReader:
    if model.tokenizer is None:
        raise SpecError([Fault("", "model.checkpoint", "this checkpoint has no tokenizer.json, a text task needs one")])
    if wanted and model.max_length and wanted > model.max_length:
        most = f"is {wanted}, but the model reads at most {model.max_length} tokens"
        raise SpecError([Fault("", "task.max_length", most)])
    limit = text_limit(wanted, model.tokenizer, model.max_length)
    least = 1 + model.tokenizer.specials(pair=len(fields) == 2)
    if limit < least:
        raise SpecError([Fault("", "task.max_length", f"is {limit}, but a text needs {least} tokens at least")])
    return TextReader(model.tokenizer, fields, limit, truncate)


def _classify(spec: ClassifyTask, model: LoadedModel) -> Classify | ClassifyTokens:
    labels = spec.labels or model.labels
    if model.labels and len(labels) != len(model.labels):
        wrong = f"{len(labels)} labels given, the model has {len(model.labels)}"
        raise SpecError([Fault("", "task.labels", wrong)])
    reader = _reader(spec.fields_read or (), spec.max_length, spec.truncate, model)
    if spec.level == "token":
        return ClassifyTokens(spec, model, reader, labels)
    return Classify(spec, model, reader, labels, _thresholds(spec, labels))


def _thresholds(spec: ClassifyTask, labels: tuple[str, ...]) -> np.ndarray:
    if not isinstance(spec.threshold, Mapping):
        return np.full(len(labels), spec.threshold, np.float32)
    given = spec.threshold
    faults = [
        Fault("", f"task.threshold.{name}", f"no such label; there are {', '.join(labels)}")
        for name in given
        if name not in labels
    ]
    if faults:
        raise SpecError(faults)
    return np.array([given.get(label, 0.5) for label in labels], np.float32)


def _width(model: LoadedModel) -> int:
    """D of the model's `hidden: float32[B, L, D]`, found without running it."""
    shape = jax.ShapeDtypeStruct((1, 8), np.int32)
    inputs = {"tokens": shape, "lengths": jax.ShapeDtypeStruct((1,), np.int32)}
    return jax.eval_shape(model.apply, model.params, inputs)["hidden"].shape[-1]
