"""Packing and bucket choice: every row once, nothing too long for its bucket, little padding, least cost."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.engine.buckets import BUCKETS_MAX, Batch, Bucket, BucketSet, choose_buckets, device_profile, pack
from batchinfer.errors import EngineError, SpecError

CPU = device_profile("cpu", cores=2)
GPU = device_profile("gpu", cores=16)


@st.composite
def bucket_sets(draw: st.DrawFn) -> BucketSet:
    lengths = sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=5)))
    buckets = tuple(Bucket(length, draw(st.integers(1, 9))) for length in lengths)
    return BucketSet(buckets, draw(st.integers(0, 50)))


@st.composite
def packings(draw: st.DrawFn, rows_max: int = 60) -> tuple[list[int], BucketSet]:
    buckets = draw(bucket_sets())
    return draw(st.lists(st.integers(1, buckets.max_length), max_size=rows_max)), buckets


def cost(batches: list[Batch], buckets: BucketSet) -> int:
    return sum(buckets.overhead_tokens + batch.bucket.cells for batch in batches)


def sentence_lengths(count: int) -> list[int]:
    """Token counts spread as those of 6,000 docstring sentences and paragraphs of the standard library."""
    share = [0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0]
    tokens = [6, 9, 14, 20, 34, 64, 102, 256, 256]
    draw = np.random.default_rng(7)
    return np.interp(draw.uniform(size=count), share, tokens).astype(int).tolist()


# --- packing --------------------------------------------------------------------------------------------------------


@given(packings())
def test_every_row_is_in_exactly_one_batch(packing: tuple[list[int], BucketSet]) -> None:
    lengths, buckets = packing
    rows = [row for batch in pack(lengths, buckets) for row in batch.rows]
    assert sorted(rows) == list(range(len(lengths)))


@given(packings())
def test_every_batch_fits_its_bucket(packing: tuple[list[int], BucketSet]) -> None:
    lengths, buckets = packing
    for batch in pack(lengths, buckets):
        assert batch.bucket in buckets.buckets
        assert 1 <= len(batch.rows) <= batch.bucket.rows
        assert max(lengths[row] for row in batch.rows) <= batch.bucket.length


@given(packings())
def test_the_longest_rows_come_first(packing: tuple[list[int], BucketSet]) -> None:
    lengths, buckets = packing
    longest = [max(lengths[row] for row in batch.rows) for batch in pack(lengths, buckets)]
    assert longest == sorted(longest, reverse=True)


@given(packings())
def test_rows_of_one_length_are_interchangeable(packing: tuple[list[int], BucketSet]) -> None:
    """Shapes depend on the lengths alone, not on the order in which they came."""
    lengths, buckets = packing
    shapes = [(batch.bucket, len(batch.rows)) for batch in pack(lengths, buckets)]
    assert shapes == [(batch.bucket, len(batch.rows)) for batch in pack(lengths[::-1], buckets)]


@settings(max_examples=50)
@given(packings(rows_max=7))
def test_no_packing_is_cheaper(packing: tuple[list[int], BucketSet]) -> None:
    lengths, buckets = packing
    ordered = sorted(lengths)

    def cheapest(cuts: tuple[int, ...]) -> float:
        total = 0
        for start, end in itertools.pairwise((0, *cuts, len(ordered))):
            fitting = [b for b in buckets.buckets if b.length >= ordered[end - 1] and b.rows >= end - start]
            if not fitting:
                return float("inf")
            total += min(b.cells for b in fitting) + buckets.overhead_tokens
        return total

    inner = range(1, len(ordered))
    every = [cheapest(cuts) for n in range(len(ordered)) for cuts in itertools.combinations(inner, n)]
    assert cost(pack(lengths, buckets), buckets) == min(every, default=0)


def test_a_short_tail_rides_in_a_larger_bucket() -> None:
    buckets = BucketSet((Bucket(8, 4), Bucket(16, 2)), overhead_tokens=10)
    assert pack([5, 5, 5, 5, 5, 12], buckets) == [Batch(Bucket(16, 2), (4, 5)), Batch(Bucket(8, 4), (0, 1, 2, 3))]


def test_rows_without_length_fill_the_one_bucket_in_order() -> None:
    batches = pack([0] * 5, BucketSet((Bucket(0, 2),)))
    assert sorted(batch.rows for batch in batches) == [(0,), (1, 2), (3, 4)]


@pytest.mark.parametrize(
    ("length", "buckets", "message"),
    [
        (9, (Bucket(8, 4),), "length 9 fits no bucket .longest: 8.*cut or reject"),
        (0, (Bucket(8, 4),), "lengths are 1 or more"),
        (3, (Bucket(0, 4),), "length 3 fits no bucket"),
    ],
)
def test_a_row_that_fits_no_bucket_is_named(length: int, buckets: tuple[Bucket, ...], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        pack([length], BucketSet(buckets))


def test_sentences_are_padded_by_at_most_a_fifth() -> None:
    lengths = sentence_lengths(5000)
    batches = pack(lengths, choose_buckets(256, 16384, None, None, CPU))
    assert 1 - sum(lengths) / sum(batch.bucket.cells for batch in batches) <= 0.20


# --- choosing -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2048), st.integers(0, 20000), st.none() | st.integers(1, 100), st.sampled_from([CPU, GPU]))
def test_chosen_buckets_hold_any_text_within_the_limits(max_length, more_tokens, max_rows, profile) -> None:
    max_tokens = max_length + more_tokens
    buckets = choose_buckets(max_length, max_tokens, max_rows, None, profile)
    assert buckets.max_length == max_length
    assert len(buckets.buckets) <= BUCKETS_MAX
    assert all(bucket.cells <= max_tokens for bucket in buckets.buckets)
    assert all(bucket.rows <= (max_rows or max_tokens) for bucket in buckets.buckets)


def test_a_cpu_gets_small_batches_and_an_accelerator_full_ones() -> None:
    assert max(b.cells for b in choose_buckets(256, 16384, None, None, CPU).buckets) <= 512
    assert choose_buckets(256, 16384, None, [256], GPU).buckets == (Bucket(256, 64),)
    assert (CPU.lanes, CPU.parallel) == (2, 2)
    assert (GPU.lanes, GPU.parallel) == (2, 1)


def test_shapes_do_not_depend_on_the_number_of_cores() -> None:
    many = device_profile("cpu", cores=64)
    assert choose_buckets(256, 16384, None, None, CPU) == choose_buckets(256, 16384, None, None, many)


def test_rows_of_one_shape_have_one_bucket() -> None:
    assert choose_buckets(0, 16384, None, None, CPU).buckets == (Bucket(0, 64),)
    assert choose_buckets(0, 16384, 8, None, CPU).buckets == (Bucket(0, 8),)


def test_asked_lengths_are_taken_but_none_is_longer_than_any_text() -> None:
    chosen = choose_buckets(100, 16384, None, [32, 64, 128], CPU)
    assert [bucket.length for bucket in chosen.buckets] == [32, 64, 100]


@pytest.mark.parametrize(
    ("max_tokens", "lengths", "message"),
    [
        (128, None, "batching.max_tokens: a batch of 128 tokens cannot hold one text of 256"),
        (1024, [32, 128], "batching.buckets: the longest is 128 but texts may have 256 tokens"),
        (1024, [128, 32, 256], "must ascend"),
        (1024, [], "must ascend"),
    ],
)
def test_what_does_not_go_together_is_said(max_tokens: int, lengths: list[int] | None, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        choose_buckets(256, max_tokens, None, lengths, CPU)


def test_planning_batches_needs_no_jax() -> None:
    code = "import sys, batchinfer.engine.buckets, batchinfer.engine.windows; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
