"""Sequence packing: every example in one row, rows that fit, little padding, and results that do not notice."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.engine.buckets import BucketSet, choose_buckets, device_profile, pack
from batchinfer.engine.forward import ForwardEngine
from batchinfer.engine.mesh import make_mesh
from batchinfer.engine.sharing import alone, row_length, share_rows
from batchinfer.errors import EngineError

CPU = device_profile("cpu", cores=2)
BUCKETS = choose_buckets(256, 16384, None, None, CPU, shared=True)


@dataclass(frozen=True)
class Row:
    arrays: dict[str, np.ndarray]
    length: int


LENGTHS = st.lists(st.integers(1, 256), max_size=300)


@given(LENGTHS)
def test_every_example_is_in_exactly_one_row(lengths: list[int]) -> None:
    rows = share_rows(lengths, BUCKETS)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))


@given(LENGTHS)
def test_a_row_fits_a_bucket_in_tokens_and_in_slots(lengths: list[int]) -> None:
    for row in share_rows(lengths, BUCKETS):
        bucket = BUCKETS.holding(row_length(row, lengths))
        assert sum(lengths[index] for index in row) <= bucket.length
        assert len(row) <= BUCKETS.slots(bucket.length)


@given(LENGTHS)
def test_rows_are_a_function_of_the_lengths(lengths: list[int]) -> None:
    assert share_rows(lengths, BUCKETS) == share_rows(list(lengths), BUCKETS)


@given(LENGTHS)
def test_no_two_rows_could_have_been_one(lengths: list[int]) -> None:
    """At most one row of the smallest bucket is less than half full: best fit would have joined two."""
    smallest = BUCKETS.buckets[0].length
    rows = [row for row in share_rows(lengths, BUCKETS) if len(row) < BUCKETS.slots(smallest)]
    half_empty = [row for row in rows if sum(lengths[index] for index in row) * 2 < smallest]
    assert len(half_empty) <= 1


def test_the_buckets_are_few_and_hold_the_longest_text() -> None:
    assert [bucket.length for bucket in BUCKETS.buckets] == [64, 128, 256]
    assert [b.length for b in choose_buckets(200, 16384, None, None, CPU, shared=True).buckets] == [64, 128, 200]
    assert [b.length for b in choose_buckets(20, 16384, None, None, CPU, shared=True).buckets] == [64]
    assert [b.length for b in choose_buckets(20, 32, None, None, CPU, shared=True).buckets] == [32]


def test_sentences_are_padded_by_a_twentieth_at_most() -> None:
    draw = np.random.default_rng(7)
    tokens = np.interp(draw.uniform(size=1500), [0, 0.25, 0.5, 0.75, 0.95, 1], [6, 14, 20, 34, 102, 256]).astype(int)
    lengths = tokens.tolist()
    rows = share_rows(lengths, BUCKETS)
    batches = pack([row_length(row, lengths) for row in rows], BUCKETS)
    assert 1 - sum(lengths) / sum(batch.bucket.cells for batch in batches) <= 0.05


def test_an_example_longer_than_every_bucket_is_named() -> None:
    with pytest.raises(EngineError, match="a row of length 257 fits no bucket"):
        share_rows([257], BUCKETS)


def test_alone_is_one_each() -> None:
    assert alone(3) == [(0,), (1,), (2,)]


def running_sums(params, inputs):
    """Per slot: the sum of its tokens, weighted by their position, read off starts and lengths."""
    places = jnp.arange(inputs["tokens"].shape[1])
    inside = (places >= inputs["starts"][..., None]) & (places < (inputs["starts"] + inputs["lengths"])[..., None])
    same = inputs["segments"][:, None, :] == 1 + jnp.arange(inputs["starts"].shape[1])[:, None]
    weighted = inputs["tokens"] * (1 + inputs["positions"])
    return {
        "by_place": (inside * weighted[:, None, :]).sum(-1) * params,
        "by_segment": (same * weighted[:, None, :]).sum(-1) * params,
    }


def test_results_return_to_their_examples() -> None:
    draw = np.random.default_rng(3)
    examples = []
    for length in draw.integers(1, 30, 200):
        tokens = draw.integers(1, 100, length).astype(np.int32)
        examples.append(Row({"tokens": tokens}, int(length)))
    expected = [int((row.arrays["tokens"] * np.arange(1, row.length + 1)).sum()) for row in examples]
    buckets = choose_buckets(30, 256, None, None, CPU, shared=True)
    with ForwardEngine(running_sums, np.int32(1), make_mesh(1), buckets, CPU) as engine:
        outputs = engine.submit(examples).result(60)
        counters = engine.counters()
    assert outputs["by_place"].tolist() == expected
    assert outputs["by_segment"].tolist() == expected
    assert (counters.rows, counters.tokens) == (200, sum(row.length for row in examples))
    assert counters.padding_share < 0.2


def test_outputs_must_be_by_slot() -> None:
    buckets = BucketSet(choose_buckets(30, 256, None, None, CPU, shared=True).buckets, shared=True)
    forward = lambda params, inputs: {"x": inputs["tokens"] * params}  # noqa: E731
    with ForwardEngine(forward, np.int32(1), make_mesh(1), buckets, CPU) as engine:
        future = engine.submit([Row({"tokens": np.ones(3, np.int32)}, 3)])
        with pytest.raises(EngineError, match=r"output `x` has shape .* with 16 slots: axis 1 must be the slots"):
            future.result(60)
