"""The host's side: what goes into a batch, and what is refused with a clear word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from batchinfer.engine.buckets import Bucket
from batchinfer.engine.sharing import alone
from batchinfer.engine.windows import Outputs, Shard, Signature, Window, assemble
from batchinfer.errors import EngineError


@dataclass(frozen=True)
class Row:
    arrays: dict[str, np.ndarray]
    length: int


def text(*tokens: int, **more: np.ndarray) -> Row:
    return Row({"tokens": np.array(tokens, np.int32), **more}, len(tokens))


def test_rows_are_padded_with_zeros_and_devices_get_their_own_part() -> None:
    window = Window([text(1, 2, 3), text(4), text(5, 6)], alone(3), batches=2)
    inputs = assemble([Shard(window, (0, 1)), Shard(window, (2,))], Signature.of(text(1)), Bucket(4, 2), devices=2)
    assert inputs["tokens"].tolist() == [[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0], [0, 0, 0, 0]]
    assert inputs["lengths"].tolist() == [3, 1, 2, 0]
    assert inputs["tokens"].dtype == inputs["lengths"].dtype == np.int32


def test_scalars_and_further_axes_keep_their_shape() -> None:
    row = text(1, 2, weight=np.float32(0.5)[()].reshape(()), boxes=np.ones((2, 4), np.float32))
    inputs = assemble([Shard(Window([row], alone(1), 1), (0,))], Signature.of(row), Bucket(3, 2), devices=1)
    assert inputs["weight"].tolist() == [0.5, 0.0]
    assert inputs["boxes"].shape == (2, 3, 4)
    assert inputs["boxes"][0, :, 0].tolist() == [1, 1, 0]


def test_rows_of_one_shape_are_stacked_without_lengths() -> None:
    row = Row({"image": np.ones((2, 2), np.float32)}, 0)
    inputs = assemble([Shard(Window([row], alone(1), 1), (0,))], Signature.of(row), Bucket(0, 3), devices=1)
    assert inputs.keys() == {"image"}
    assert inputs["image"].sum(axis=(1, 2)).tolist() == [4, 0, 0]


def test_results_return_to_their_rows_with_zeros_beyond_each_length() -> None:
    window = Window([text(1, 2), text(3), text(4, 5, 6)], alone(3), batches=2)
    sevens = {"logits": np.full((2, 4, 1), 7.0, np.float32), "vector": np.array([[1.0], [2.0]], np.float32)}
    window.scatter((2, 0), sevens, Outputs(frozenset({"logits"})))
    assert not window.batch_done()
    window.scatter((1,), {name: values[:1] for name, values in sevens.items()}, Outputs(frozenset({"logits"})))
    assert window.batch_done()
    outputs = window.future.result(timeout=0)
    assert outputs["vector"].tolist() == [[2.0], [1.0], [1.0]]
    assert outputs["logits"][:, :, 0].tolist() == [[7, 7, 0], [7, 0, 0], [7, 7, 7]]


def test_the_first_error_is_the_result() -> None:
    window = Window([text(1)], alone(1), batches=1)
    window.fail(ValueError("first"))
    window.fail(ValueError("second"))
    assert not window.batch_done()
    with pytest.raises(ValueError, match="first"):
        window.future.result(timeout=0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row({"x": np.zeros(2, np.float64)}, 0), r"`x` is float64.*\.astype\(np\.float32\)"),
        (Row({"x": np.zeros(2, np.int64)}, 2), r"`x` is int64.*\.astype\(np\.int32\)"),
        (Row({"x": np.array(["a"])}, 0), "`x` is <U1.*use numbers"),
        (Row({}, 0), "at least one array"),
        (Row({"lengths": np.zeros(2, np.int32)}, 2), "none called `lengths`"),
    ],
)
def test_arrays_no_device_takes_are_refused(row: Row, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        Signature.of(row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row({"tokens": np.zeros(3, np.int32)}, 2), r"row 5: `tokens` is int32\[3\], not int32\[2\]"),
        (Row({"tokens": np.zeros(2, np.float32)}, 2), r"`tokens` is float32\[2\], not int32\[2\]"),
        (Row({"ids": np.zeros(2, np.int32)}, 2), r"row 5 has arrays \['ids'\], others \['tokens'\]"),
    ],
)
def test_a_row_unlike_the_others_is_named(row: Row, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        Signature.of(text(1, 2)).check(5, row)
