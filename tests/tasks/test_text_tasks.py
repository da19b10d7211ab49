"""Text tasks over tiny real checkpoints: what a row becomes, what is refused, and that neighbours change nothing."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pytest

from batchinfer.errors import SpecError
from batchinfer.job import spec
from batchinfer.models.load import load_model
from batchinfer.record import Record, Rejection
from batchinfer.runners.worker import open_engine
from batchinfer.tasks import head_of, make_task

GOLDENS = Path(__file__).parents[1] / "goldens"
TEXTS = ["a", "the cat sat", "on the mat", "", "the the the the cat cat cat on on on mat mat", "sat on a cat"]


def records(texts, **more):
    return [Record(i, {"text": text, **more}, "in.jsonl", i) for i, text in enumerate(texts)]


def predict(task_spec, checkpoint, rows, batching=None):
    """Rows through task and engine: the table, and all rejections."""
    model = spec.Model(checkpoint=str(GOLDENS / checkpoint), dtype="float32")
    opened = open_engine(model, task_spec, batching or spec.Batching(), "none")
    with opened.engine as engine:
        prepared = opened.task.prepare(rows)
        good = [(row, e) for row, e in zip(rows, prepared, strict=True) if not isinstance(e, Rejection)]
        outputs = engine.submit([example for _, example in good]).result(120)
        table, rejections = opened.task.finish([row for row, _ in good], outputs)
    assert table.schema.equals(opened.task.schema())
    return table, [e for e in prepared if isinstance(e, Rejection)] + rejections


def vectors(table):
    return np.array(table["embedding"].to_pylist())


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("checkpoint", ["bert-none", "roberta-none"])
def test_sharing_rows_changes_no_vector(pooling, checkpoint):
    """P3 and P7 in one: several texts in a row see nothing of each other, whatever stands beside them."""
    task = spec.EmbedTask(kind="embed", pooling=pooling, max_length=12, truncate=True)
    shared, _ = predict(task, checkpoint, records(TEXTS * 5))
    apart, _ = predict(task, checkpoint, records(TEXTS * 5), spec.Batching(share_rows=False))
    alone, _ = predict(task, checkpoint, records(TEXTS[1:2]))
    np.testing.assert_allclose(vectors(shared), vectors(apart), atol=2e-6)
    np.testing.assert_allclose(vectors(shared)[1], vectors(alone)[0], atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors(shared), axis=1), 1, atol=1e-5)


def test_mean_and_max_pool_the_hidden_states_of_real_tokens_only():
    rows = records(TEXTS[1:3])
    model = load_model(
        spec.Model(checkpoint=str(GOLDENS / "bert-none"), dtype="float32"),
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    )
    tokens = model.tokenizer.encode([TEXTS[1]])[0]
    inputs = {"tokens": tokens[None], "lengths": np.array([len(tokens)], np.int32)}
    hidden = np.asarray(model.apply(model.params, inputs)["hidden"])[0]
    for pooling, expected in (("mean", hidden.mean(axis=0)), ("max", hidden.max(axis=0))):
        task = spec.EmbedTask(kind="embed", pooling=pooling, normalize=False)
        table, _ = predict(task, "bert-none", rows)
        np.testing.assert_allclose(vectors(table)[0], expected, atol=2e-5)


def test_float16_output_is_a_column_of_float16():
    table, _ = predict(spec.EmbedTask(kind="embed", output_dtype="float16"), "bert-none", records(TEXTS[:2]))
    assert table.schema.field("embedding").type.value_type == pa.float16()


def test_classify_gives_the_best_label_and_its_probability():
    plain, _ = predict(spec.ClassifyTask(kind="classify", probabilities=True), "bert-sequence", records(TEXTS))
    ranked, _ = predict(spec.ClassifyTask(kind="classify", top_k=2), "bert-sequence", records(TEXTS))
    probabilities = np.array(plain["probabilities"].to_pylist())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(plain["score"].to_numpy(), probabilities.max(axis=1), atol=1e-6)
    assert plain["label"].to_pylist() == [labels[0] for labels in ranked["labels"].to_pylist()]
    assert all(first >= second for first, second in ranked["scores"].to_pylist())


def test_multi_label_gives_every_label_above_its_threshold():
    everything = spec.ClassifyTask(kind="classify", multi_label=True, threshold=0.0, probabilities=True)
    table, _ = predict(everything, "bert-sequence", records(TEXTS[:2]))
    labels = table["labels"].to_pylist()[0]
    assert len(labels) == len(table["probabilities"].to_pylist()[0])
    one_out = spec.ClassifyTask(
        kind="classify", multi_label=True, threshold=dict.fromkeys(labels[:-1], 0.0) | {labels[-1]: 1.0}
    )
    fewer, _ = predict(one_out, "bert-sequence", records(TEXTS[:2]))
    assert fewer["labels"].to_pylist()[0] == labels[:-1]


def test_tokens_are_labelled_with_their_place_in_the_text():
    table, _ = predict(spec.ClassifyTask(kind="classify", level="token"), "bert-token", records(["the cat sat", ""]))
    row, empty = table.to_pylist()
    assert ["the cat sat"[a:b] for a, b in zip(row["starts"], row["ends"], strict=True)][0].startswith("t")
    assert len(row["labels"]) == len(row["scores"]) == len(row["starts"])
    assert empty == {"labels": [], "scores": [], "starts": [], "ends": []}


def test_pairs_are_scored():
    task = spec.ScorePairTask(kind="score_pair", text_pair="passage", activation="none", max_length=16, truncate=True)
    table, _ = predict(task, "bert-sequence", records(TEXTS, passage="the mat"))
    longer, _ = predict(task, "bert-sequence", records(TEXTS, passage="sat " * 50))
    assert len(table) == len(longer) == len(TEXTS)
    assert not np.allclose(table["score"].to_numpy(), longer["score"].to_numpy())


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        ({}, "missing_field", 'there is no field "text"'),
        ({"text": None}, "null_field", 'field "text" is null, text is due'),
        ({"text": 3}, "not_text", 'field "text" holds int, text is due'),
        ({"text": "cat " * 300}, "too_long", "1,200 characters are more than 12 tokens"),
    ],
)
def test_a_row_that_cannot_be_read_is_one_rejection(fields, reason, message):
    task = spec.EmbedTask(kind="embed", max_length=12)
    table, rejections = predict(task, "bert-none", [Record(0, fields, "in.jsonl", 7), *records(["cat"])])
    assert len(table) == 1
    assert [(r.error, r.stage, r.row) for r in rejections] == [(reason, "prepare", 7)]
    assert message in rejections[0].message


def test_not_finite_outputs_reject_their_row_only():
    model = spec.Model(checkpoint=str(GOLDENS / "bert-none"), dtype="float32")
    opened = open_engine(model, spec.EmbedTask(kind="embed"), spec.Batching(), "none")
    opened.engine.close()
    values = np.ones((3, opened.task.width), np.float32)
    values[1, 2] = np.nan
    table, rejections = opened.task.finish(records(["a", "b", "c"]), {"embedding": values})
    assert len(table) == 2
    assert [(r.key, r.error, r.stage) for r in rejections] == [(1, "not_finite", "finish")]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (spec.EmbedTask(kind="embed", max_length=2), "task.max_length: is 2, but a text needs 3 tokens at least"),
        (spec.ClassifyTask(kind="classify", labels=("a",)), r"task.labels: 1 labels given, the model has \d"),
        (spec.ClassifyTask(kind="classify", multi_label=True, threshold={"x": 0.5}), "task.threshold.x: no such label"),
    ],
)
def test_what_does_not_fit_the_model_is_said_before_any_work(task, message):
    checkpoint = "bert-none" if isinstance(task, spec.EmbedTask) else "bert-sequence"
    model = load_model(
        spec.Model(checkpoint=str(GOLDENS / checkpoint), dtype="float32"),
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
        head=head_of(task),
    )
    with pytest.raises(SpecError, match=message):
        make_task(task, model)
