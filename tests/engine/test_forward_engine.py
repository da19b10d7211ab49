"""The engine as its callers see it: right answers in order, few programs, faults where they belong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from batchinfer.engine.buckets import Bucket, BucketSet, DeviceProfile
from batchinfer.engine.compile import compile_log
from batchinfer.engine.forward import ForwardEngine
from batchinfer.engine.mesh import make_mesh
from batchinfer.errors import EngineError

TWO_LANES = DeviceProfile("cpu", lanes=2, parallel=2, batch_tokens=32, overhead_tokens=0)
BUCKETS = BucketSet((Bucket(4, 4), Bucket(8, 2), Bucket(16, 2)))
WAIT = 60

Forward = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    arrays: dict[str, np.ndarray]
    length: int


def text(length: int, seed: int = 0) -> Row:
    return Row({"tokens": np.random.default_rng([length, seed]).integers(1, 50, length, dtype=np.int32)}, length)


def model(params: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """`mean` of embeddings, one per text; `double` of every token; `vector` whose width equals a bucket's length."""
    tokens, lengths = inputs["tokens"], inputs["lengths"]
    mask = jnp.arange(tokens.shape[1])[None, :] < lengths[:, None]
    mean = (params[tokens] * mask[..., None]).sum(1) / jnp.maximum(lengths, 1)[:, None].astype(jnp.float32)
    return {"mean": mean, "double": 2 * tokens, "vector": jnp.tile(lengths[:, None], (1, 8))}


@pytest.fixture(scope="module")
def params() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)


@pytest.fixture
def engine(params: np.ndarray) -> Iterator[ForwardEngine]:
    with make_engine(model, params) as engine:
        yield engine


def make_engine(forward: Forward, params: Any, buckets: BucketSet = BUCKETS, max_queued: int = 4) -> ForwardEngine:
    return ForwardEngine(forward, params, make_mesh(1), buckets, TWO_LANES, max_queued)


# --- answers --------------------------------------------------------------------------------------------------------


def test_outputs_stand_in_the_order_of_the_examples(engine: ForwardEngine, params: np.ndarray) -> None:
    rows = [text(n, seed) for seed, n in enumerate([3, 16, 1, 7, 4, 8, 2, 12, 5, 1])]
    outputs = engine.submit(rows).result(WAIT)
    expected = np.stack([params[row.arrays["tokens"]].mean(0) for row in rows])
    np.testing.assert_allclose(outputs["mean"], expected, rtol=1e-6, atol=1e-6)


def test_outputs_per_token_are_as_long_as_the_longest_row_and_zero_beyond_each(engine: ForwardEngine) -> None:
    rows = [text(n) for n in (3, 7, 1)]
    double = engine.submit(rows).result(WAIT)["double"]
    assert double.shape == (3, 7)
    for row, got in zip(rows, double, strict=True):
        assert got.tolist() == [*(2 * row.arrays["tokens"]), *[0] * (7 - row.length)]


def test_an_axis_as_wide_as_a_bucket_by_chance_is_left_alone(engine: ForwardEngine) -> None:
    vector = engine.submit([text(7), text(2)]).result(WAIT)["vector"]
    assert vector.tolist() == [[7] * 8, [2] * 8]


def test_a_row_alone_and_among_others_gives_the_same(engine: ForwardEngine) -> None:
    rows = [text(n, seed) for seed, n in enumerate([3, 2, 4, 1, 3])]
    together = engine.submit(rows).result(WAIT)["mean"]
    alone = [engine.submit([row]).result(WAIT)["mean"][0] for row in rows]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-6)


def test_the_same_window_gives_the_same_bytes(engine: ForwardEngine) -> None:
    rows = [text(1 + n % 16, n) for n in range(40)]
    first, second = engine.submit(rows), engine.submit(rows)
    assert first.result(WAIT)["mean"].tobytes() == second.result(WAIT)["mean"].tobytes()


def test_rows_of_one_shape_need_no_lengths() -> None:
    def brightness(scale: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        assert inputs.keys() == {"image"}
        return {"sum": scale * inputs["image"].sum((1, 2))}

    rows = [Row({"image": np.full((2, 3), n, np.float32)}, 0) for n in range(5)]
    with make_engine(brightness, np.float32(2), BucketSet((Bucket(0, 2),))) as engine:
        assert engine.submit(rows).result(WAIT)["sum"].tolist() == [0, 12, 24, 36, 48]
        counters = engine.counters()
    assert (counters.rows, counters.rows_issued, counters.tokens) == (5, 6, 0)


def test_no_examples_no_outputs(engine: ForwardEngine) -> None:
    assert engine.submit([]).result(WAIT) == {}


# --- programs and counters ------------------------------------------------------------------------------------------


def test_p7_each_bucket_compiles_once_and_nothing_else_does(params: np.ndarray) -> None:
    before = compile_log().total()
    with make_engine(model, params) as engine:
        windows = [engine.submit([text(1 + n % 16, n) for n in range(30)]) for _ in range(3)]
        for window in windows:
            window.result(WAIT)
        counters = engine.counters()
    made = compile_log().total() - before
    assert made.compilations + made.cache_hits == len(BUCKETS.buckets)
    assert counters.compilations + counters.cache_hits == len(BUCKETS.buckets)
    assert counters.compile_seconds > 0


def test_warm_up_leaves_nothing_to_compile(params: np.ndarray) -> None:
    with make_engine(model, params) as engine:
        for program in engine.warm_up(text(1)):
            program.result(WAIT)
        before = compile_log().total()
        engine.submit([text(n) for n in (1, 8, 16)]).result(WAIT)
        assert compile_log().total() == before


def test_buckets_that_no_row_needs_are_not_compiled(engine: ForwardEngine) -> None:
    engine.submit([text(3), text(4)]).result(WAIT)
    counters = engine.counters()
    assert counters.compilations + counters.cache_hits == 1


def test_rows_tokens_and_padding_are_counted(engine: ForwardEngine) -> None:
    engine.submit([text(3), text(4), text(16)]).result(WAIT)
    counters = engine.counters()
    assert (counters.rows, counters.rows_issued) == (3, 6)
    assert (counters.tokens, counters.tokens_issued) == (23, 48)
    assert counters.batches == {Bucket(4, 4): 1, Bucket(16, 2): 1}
    assert 0 <= counters.idle_share < 1
    assert counters.busy_seconds > 0


# --- faults ---------------------------------------------------------------------------------------------------------


def explode(params: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Fails while running when a batch holds token 49, not before."""

    def check(tokens: np.ndarray) -> np.ndarray:
        if (tokens == 49).any():
            raise ValueError("token 49 is cursed")
        return tokens

    tokens = inputs["tokens"]
    return {"same": jax.pure_callback(check, jax.ShapeDtypeStruct(tokens.shape, tokens.dtype), tokens)}


def test_an_error_on_the_device_reaches_its_window_and_no_other() -> None:
    good, bad = text(3), Row({"tokens": np.array([1, 49], np.int32)}, 2)
    with make_engine(explode, ()) as engine:
        windows = [engine.submit([good]), engine.submit([bad] * 20), engine.submit([good])]
        assert windows[0].result(WAIT)["same"].shape == (1, 3)
        with pytest.raises(jax.errors.JaxRuntimeError, match="token 49 is cursed"):
            windows[1].result(WAIT)
        assert windows[2].result(WAIT)["same"].shape == (1, 3)


def limited(rows_max: int) -> Forward:
    """A device too small for more than `rows_max` rows at a time."""

    def forward(params: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if inputs["tokens"].shape[0] > rows_max:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte\nmore")
        return {"double": 2 * inputs["tokens"]}

    return forward


def test_out_of_memory_halves_the_rows_says_so_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    rows = [text(4, n) for n in range(9)]
    with caplog.at_level(logging.WARNING), make_engine(limited(1), (), BucketSet((Bucket(4, 4),))) as engine:
        for _ in range(2):
            double = engine.submit(rows).result(WAIT)["double"]
            assert double.tolist() == [(2 * row.arrays["tokens"]).tolist() for row in rows]
        counters = engine.counters()
    assert counters.oom_notches == len(caplog.messages) == 2
    assert "out of device memory in bucket 4x4: going on with 2x4 (RESOURCE_EXHAUSTED" in caplog.text
    assert counters.batches == {Bucket(4, 1): 18}
    assert counters.rows == 18


def test_out_of_memory_while_running_is_the_same() -> None:
    def forward(params: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        def allocate(tokens: np.ndarray) -> np.ndarray:
            if len(tokens) > 2:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return tokens

        tokens = inputs["tokens"]
        return {"same": jax.pure_callback(allocate, jax.ShapeDtypeStruct(tokens.shape, tokens.dtype), tokens)}

    rows = [text(4, n) for n in range(5)]
    with make_engine(forward, (), BucketSet((Bucket(4, 4),))) as engine:
        assert len(engine.submit(rows).result(WAIT)["same"]) == 5
        assert engine.counters().batches == {Bucket(4, 2): 3}


def test_out_of_memory_with_one_row_is_an_error_with_a_hint() -> None:
    with make_engine(limited(0), ()) as engine, pytest.raises(EngineError, match=r"with one row of bucket 1x4.*dtype"):
        engine.submit([text(3)]).result(WAIT)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda p, x: x["tokens"], "must return named arrays in a mapping"),
        (lambda p, x: {"loss": x["tokens"].sum()}, r"`loss` has shape \(\) .*axis 0 must be the rows"),
    ],
)
def test_a_forward_with_other_outputs_is_refused(forward: Forward, message: str) -> None:
    with make_engine(forward, ()) as engine, pytest.raises(EngineError, match=message):
        engine.submit([text(3)]).result(WAIT)


def test_a_row_unlike_the_first_is_refused_at_once(engine: ForwardEngine) -> None:
    engine.submit([text(3)]).result(WAIT)
    with pytest.raises(EngineError, match="row 1 has arrays"):
        engine.submit([text(3), Row({"image": np.zeros(3, np.int32)}, 3)])
    with pytest.raises(EngineError, match="length 17 fits no bucket"):
        engine.submit([text(17)])


# --- waiting and closing --------------------------------------------------------------------------------------------


class Gate:
    """A forward that waits on the device until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()

    def forward(self, params: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
        def wait(tokens: np.ndarray) -> np.ndarray:
            self.entered.set()
            assert self.opened.wait(WAIT)
            return tokens

        tokens = inputs["tokens"]
        return {"same": jax.pure_callback(wait, jax.ShapeDtypeStruct(tokens.shape, tokens.dtype), tokens)}


def test_p6_submit_waits_while_enough_windows_are_queued() -> None:
    gate = Gate()
    with make_engine(gate.forward, (), max_queued=2) as engine:
        engine.submit([text(3)])
        engine.submit([text(3)])
        submitted = threading.Event()
        third = threading.Thread(target=lambda: (engine.submit([text(3)]), submitted.set()))
        third.start()
        assert gate.entered.wait(WAIT)
        assert not submitted.wait(0.05)
        gate.opened.set()
        assert submitted.wait(WAIT)
        third.join()


def test_close_ends_the_threads_and_what_was_not_done_says_so() -> None:
    gate, before = Gate(), set(threading.enumerate())
    engine = make_engine(gate.forward, (), max_queued=3)
    windows = [engine.submit([text(3)] * 4) for _ in range(3)]
    assert gate.entered.wait(WAIT)
    closing = threading.Thread(target=engine.close)
    closing.start()
    gate.opened.set()
    closing.join(WAIT)
    assert all(window.done() for window in windows)
    with pytest.raises(EngineError, match="closed before this window was done"):
        windows[2].result(0)
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.submit([text(3)])
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("batchinfer-")]
