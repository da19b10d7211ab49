"""Counters add up in any order and survive JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import reduce
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.report.metrics import RunCounters, host_facts, peak_memory_bytes

whole = st.integers(0, 10**12)
counters = st.builds(
    RunCounters,
    rows_in=whole,
    predictions=whole,
    rejections_by_reason=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 10**6)),
    tokens=whole,
    read_seconds=st.integers(0, 10**6).map(float),  # whole seconds: float sums then do not depend on the order
    units_done=whole,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(counters, max_size=5), st.randoms())
def test_merging_does_not_depend_on_the_order(parts: list[RunCounters], random) -> None:
    shuffled = parts.copy()
    random.shuffle(shuffled)
    assert reduce(add, parts, RunCounters()) == reduce(add, shuffled, RunCounters())


def test_every_counter_is_summed_and_reasons_by_name() -> None:
    one = RunCounters(rows_in=3, predictions=1, rejections=2, rejections_by_reason={"b": 1, "a": 1}, write_seconds=0.5)
    assert one + RunCounters(rows_in=1, rejections=1, rejections_by_reason={"b": 4}, write_seconds=1) == RunCounters(
        rows_in=4, predictions=1, rejections=3, rejections_by_reason={"a": 1, "b": 5}, write_seconds=1.5
    )


def test_a_reason_taken_back_disappears() -> None:
    taken_back = RunCounters(rejections_by_reason={"a": 1}) + RunCounters(rejections_by_reason={"a": -1})
    assert taken_back == RunCounters()


@settings(max_examples=50, deadline=None)
@given(counters)
def test_json_and_back(some: RunCounters) -> None:
    assert RunCounters.from_json(json.loads(json.dumps(some.to_json()))) == some


def test_an_unknown_counter_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        RunCounters.from_json({"colour": 1})


def test_shares() -> None:
    assert RunCounters().padding_share is None and RunCounters().device_idle_share is None
    assert RunCounters(tokens=75, tokens_issued=100).padding_share == 0.25
    assert RunCounters(device_seconds=3, device_wait_seconds=1).device_idle_share == 0.25


def test_peak_memory_is_at_least_what_this_test_holds() -> None:
    held = b"x" * 50_000_000
    assert peak_memory_bytes() > len(held)


def test_host_facts_are_json_and_start_nothing() -> None:
    code = (
        "import sys, json; from batchinfer.report.metrics import host_facts; print(json.dumps(host_facts()));"
        "assert not {'jax', 'flax', 'apache_beam', 'orbax'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    facts = json.loads(out)
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= facts["cpus"] <= (os.cpu_count() or 1)
    assert facts["versions"]["jax"] == host_facts()["versions"]["jax"] is not None
