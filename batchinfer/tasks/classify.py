"""Classification: labels of a text, of its tokens, or the score of a pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from batchinfer.job.spec import ClassifyTask, ScorePairTask
from batchinfer.models.base import LoadedModel
from batchinfer.record import Record, Rejection
from batchinfer.tasks.base import Arrays, Example
from batchinfer.tasks.columns import split_finite, vectors
from batchinfer.tasks.texts import TextReader


@dataclass(frozen=True, slots=True)
class Classify:
    """`tokens: int32[B, L]` -> `probabilities: float32[B, C]`; one label, the best k, or all above a threshold."""

    spec: ClassifyTask
    model: LoadedModel
    reader: TextReader
    labels: tuple[str, ...]
    thresholds: np.ndarray
    """float32[C], for multi_label."""

    @property
    def max_length(self) -> int | None:
        return self.reader.max_length

    @property
    def shares_rows(self) -> bool:
        return False

    def prepare(self, records: Sequence[Record]) -> list[Example | Rejection]:
        return self.reader.examples(records)

    def forward(self, params: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        logits = self.model.apply(params, inputs)["logits"]
        activation = jax.nn.sigmoid if self.spec.multi_label else jax.nn.softmax
        return {"probabilities": activation(logits)}

    def finish(self, records: Sequence[Record], outputs: Arrays) -> tuple[pa.Table, list[Rejection]]:
        kept, rejections = split_finite(records, outputs["probabilities"])
        probabilities = outputs["probabilities"][kept]
        columns = self._many(probabilities) if self._gives_lists else self._best(probabilities)
        if self.spec.probabilities:
            columns.append(vectors(probabilities))
        return pa.Table.from_arrays(columns, schema=self.schema()), rejections

    def schema(self) -> pa.Schema:
        if self._gives_lists:
            fields = [pa.field("labels", pa.list_(pa.string())), pa.field("scores", pa.list_(pa.float32()))]
        else:
            fields = [pa.field("label", pa.string()), pa.field("score", pa.float32())]
        if self.spec.probabilities:
            fields.append(pa.field("probabilities", pa.list_(pa.float32(), len(self.labels))))
        return pa.schema(fields)

    @property
    def _gives_lists(self) -> bool:
        return self.spec.multi_label or self.spec.top_k > 1

    def _best(self, probabilities: np.ndarray) -> list[pa.Array]:
        best = probabilities.argmax(axis=1) if len(probabilities) else np.zeros(0, np.int64)
        scores = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0]
        return [pa.array([self.labels[i] for i in best], pa.string()), pa.array(scores)]

    def _many(self, probabilities: np.ndarray) -> list[pa.Array]:
        order = np.argsort(-probabilities, axis=1, kind="stable")
        if self.spec.multi_label:
            chosen = [
                [i for i in row if p[i] >= self.thresholds[i]] for row, p in zip(order, probabilities, strict=True)
            ]
        else:
            chosen = order[:, : self.spec.top_k].tolist()
        scores = [p[row] for row, p in zip(chosen, probabilities, strict=True)]
        return [
            pa.array([[self.labels[i] for i in row] for row in chosen], pa.list_(pa.string())),
            pa.array(scores, pa.list_(pa.float32())),
        ]


@dataclass(frozen=True, slots=True)
class ClassifyTokens:
    """`tokens: int32[B, L]` -> `probabilities: float32[B, L, C]`; the best label of every token of the text.

    `starts` and `ends` are character positions in the text; special tokens are left out.
    """

    spec: ClassifyTask
    model: LoadedModel
    reader: TextReader
    labels: tuple[str, ...]

    @property
    def max_length(self) -> int | None:
        return self.reader.max_length

    @property
    def shares_rows(self) -> bool:
        return False

    def prepare(self, records: Sequence[Record]) -> list[Example | Rejection]:
        return self.reader.examples(records)

    def forward(self, params: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"probabilities": jax.nn.softmax(self.model.apply(params, inputs)["logits"])}

    def finish(self, records: Sequence[Record], outputs: Arrays) -> tuple[pa.Table, list[Rejection]]:
        kept, rejections = split_finite(records, outputs["probabilities"])
        texts = [self.reader.texts(records[i])[0] for i in kept]
        tokenizer = self.reader.tokenizer
        spans = [
            tokenizer.truncate(spanned.offsets, self.reader.max_length)
            for spanned in tokenizer.encode_spans(texts, limit=self.reader.max_length)
        ]
        rows = [self._row(outputs["probabilities"][i], span) for i, span in zip(kept, spans, strict=True)]
        columns = [[row[j] for row in rows] for j in range(4)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema(), strict=True)]
        return pa.Table.from_arrays(arrays, schema=self.schema()), rejections

    def schema(self) -> pa.Schema:
        item = {"labels": pa.string(), "scores": pa.float32(), "starts": pa.int32(), "ends": pa.int32()}
        return pa.schema([pa.field(name, pa.list_(kind)) for name, kind in item.items()])

    def _row(self, probabilities_LxC: np.ndarray, offsets_Tx2: np.ndarray) -> tuple[list, list, list, list]:
        """Special tokens have empty spans and are left out."""
        places = np.flatnonzero(offsets_Tx2[:, 1] > offsets_Tx2[:, 0])
        best = probabilities_LxC[places].argmax(axis=1)
        scores = probabilities_LxC[places, best]
        starts, ends = offsets_Tx2[places].T
        return [self.labels[b] for b in best], scores.tolist(), starts.tolist(), ends.tolist()


@dataclass(frozen=True, slots=True)
class ScorePair:
    """A cross-encoder: `tokens, token_types: int32[B, L]` -> `score: float32[B]`."""

    spec: ScorePairTask
    model: LoadedModel
    reader: TextReader

    @property
    def max_length(self) -> int | None:
        return self.reader.max_length

    @property
    def shares_rows(self) -> bool:
        return False

    def prepare(self, records: Sequence[Record]) -> list[Example | Rejection]:
        return self.reader.examples(records)

    def forward(self, params: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        score = self.model.apply(params, inputs)["logits"][:, 0]
        return {"score": jax.nn.sigmoid(score) if self.spec.activation == "sigmoid" else score}

    def finish(self, records: Sequence[Record], outputs: Arrays) -> tuple[pa.Table, list[Rejection]]:
        kept, rejections = split_finite(records, outputs["score"])
        return pa.Table.from_arrays([pa.array(outputs["score"][kept])], schema=self.schema()), rejections

    def schema(self) -> pa.Schema:
        return pa.schema([pa.field("score", pa.float32())])
