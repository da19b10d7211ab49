"""The worked example of a user's own model and task: what is in git is what the scripts make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from batchinfer.errors import RejectRow
from batchinfer.job import spec
from batchinfer.models.base import LoadedModel
from batchinfer.models.load import load_model
from jobs.digits import make_digits
from jobs.digits.task import DigitTask, to_image

ROOT = Path(make_digits.__file__).parents[2]
CHECKPOINT = ROOT / "jobs/digits/checkpoint"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """What the job's model section gives."""
    section = spec.Model(module="jobs.digits.model:build", checkpoint=str(CHECKPOINT))
    return load_model(section, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def test_the_checkpoint_in_git_knows_the_held_out_images(model: LoadedModel) -> None:
    _, held_out = make_digits.split()
    logits = np.asarray(model.apply(model.params, {"image": to_image(held_out.pixels)}))
    assert logits.shape == (500, 10)
    assert np.mean(logits.argmax(axis=1) == held_out.targets) >= 0.97


def test_the_checkpoint_is_small_and_does_not_say_where_it_was_made() -> None:
    files = [path for path in CHECKPOINT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert [path.name for path in files if str(ROOT).encode() in path.read_bytes()] == []


def test_the_model_trains_on_other_images_than_it_is_judged_by() -> None:
    training, held_out = make_digits.split()
    assert len(training.ids) == 1297
    assert sorted([*training.ids, *held_out.ids]) == list(range(1797))


def test_the_script_makes_the_held_out_images(tmp_path: Path) -> None:
    path = tmp_path / "new" / "digits.parquet"
    command = [sys.executable, make_digits.__file__, path]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    table = pq.read_table(path)
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "int64",
        "pixels": "list<element: float>",
        "target": "int64",
    }
    assert len(table) == 500
    assert {len(row) for row in table["pixels"].to_pylist()} == {64}
    assert [child.name for child in path.parent.iterdir()] == ["digits.parquet"]


def test_a_row_becomes_an_image_and_logits_a_label() -> None:
    pixels = [0.0] * 63 + [16.0]
    image = DigitTask().prepare({"pixels": pixels})["image"]
    assert (image.shape, image.dtype) == ((8, 8, 1), np.float32)
    assert image[7, 7, 0] == 1.0
    logits = np.log(np.array([0.75, 0.25] + [1e-30] * 8)).astype(np.float32)
    row = DigitTask().finish({"output": logits})
    assert row["label"] == 0
    assert row["probability"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ([1.0] * 63, r"64 numbers, got shape \[63\]"),
        ([], r"64 numbers, got shape \[0\]"),
        (None, r"64 numbers, got shape \[\]"),
        ([17.0] * 64, "from 0 to 16"),
        ([float("nan")] * 64, "from 0 to 16"),
    ],
)
def test_what_is_no_image_is_rejected(pixels: list[float] | None, message: str) -> None:
    with pytest.raises(RejectRow, match=message):
        DigitTask().prepare({"pixels": pixels})
