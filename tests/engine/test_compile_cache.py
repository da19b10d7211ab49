"""Compiled programs are kept on disk, and compilations are told apart from loads."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from batchinfer.engine.compile import CompileCounts, compile_log, setup_compilation_cache


@pytest.fixture(autouse=True)
def cache_as_before() -> Iterator[None]:
    before = jax.config.jax_compilation_cache_dir
    yield
    setup_compilation_cache(before)


def compile_afresh() -> CompileCounts:
    """What a new process would do: compile, or load from the directory."""
    before = compile_log().total()
    jax.clear_caches()
    jax.jit(lambda x: x * 3 + 1).lower(np.float32(1)).compile()
    return compile_log().total() - before


def test_a_second_start_loads_what_the_first_compiled(tmp_path: Path) -> None:
    setup_compilation_cache(str(tmp_path / "xla"))
    cold, warm = compile_afresh(), compile_afresh()
    assert (cold.compilations, cold.cache_hits) == (1, 0)
    assert cold.seconds > 0
    assert warm == CompileCounts(cache_hits=1)


def test_another_directory_can_be_set_later(tmp_path: Path) -> None:
    setup_compilation_cache(str(tmp_path / "one"))
    compile_afresh()
    setup_compilation_cache(str(tmp_path / "two"))
    assert compile_afresh().compilations == 1
    setup_compilation_cache(str(tmp_path / "one"))
    assert compile_afresh().cache_hits == 1


def test_without_a_directory_nothing_is_kept() -> None:
    setup_compilation_cache(None)
    assert compile_afresh().compilations == compile_afresh().compilations == 1


def test_a_directory_that_cannot_be_made_is_said_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        setup_compilation_cache(str(tmp_path / "file" / "xla"))
    assert "compiled programs are not kept" in caplog.text
    assert compile_afresh().compilations == 1
