"""The overlays that are shipped fit every job, and say what each line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchinfer.job.overlays import read_overlay
from batchinfer.job.tree import leaves

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


def test_there_are_some():
    assert {"cpu.py", "gpu_h200.py", "tpu_v5e.py"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_an_overlay_sets_only_fields_that_exist(job, path):
    loaded = job("", overlays=[str(path)])
    [layer] = read_overlay(str(path))
    assert all(loaded.origins[".".join(map(str, field))] == str(path) for field, _ in leaves(layer))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_setting_says_meaning_and_limit(path):
    settings = [line for line in path.read_text().splitlines() if " = " in line and "ConfigDict()" not in line]
    assert settings and all("  # " in line for line in settings)
