"""The mesh, and promise P3 across devices: one device and eight give the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from batchinfer.engine.mesh import make_mesh
from batchinfer.errors import SpecError

SCRIPT = """
import sys
from dataclasses import dataclass
from typing import Any
import jax, jax.numpy as jnp, numpy as np
from batchinfer.engine.buckets import choose_buckets, device_profile
from batchinfer.engine.compile import compile_log
from batchinfer.engine.forward import ForwardEngine
from batchinfer.engine.mesh import make_mesh

@dataclass(frozen=True)
class Row:
    arrays: dict[str, Any]
    length: int

def forward(params, inputs):
    tokens, lengths = inputs["tokens"], inputs["lengths"]
    mask = jnp.arange(tokens.shape[1])[None, :] < lengths[:, None]
    x = params["embedding"][tokens]
    scores = jnp.where(mask[:, None, :], jnp.einsum("bqd,bkd->bqk", x, x), -1e9)
    x = jax.nn.gelu(jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(scores), x) @ params["kernel"])
    x = x * mask[..., None]
    return {"pooled": x.sum(1) / jnp.maximum(lengths, 1)[:, None], "hidden": x}

draw = np.random.default_rng(3)
params = {"embedding": draw.normal(size=(100, 64)).astype(np.float32),
          "kernel": draw.normal(size=(64, 64)).astype(np.float32)}
lengths = draw.integers(1, 65, 300).tolist()
rows = [Row({"tokens": draw.integers(1, 100, n, dtype=np.int32)}, n) for n in lengths]
profile = device_profile("cpu", 2)
mesh = make_mesh()
with ForwardEngine(forward, params, mesh, choose_buckets(64, 512, None, [16, 32, 64], profile), profile) as engine:
    halves = [engine.submit(rows[:170]), engine.submit(rows[170:])]
    outputs = [half.result(120) for half in halves]
    made = compile_log().total()
    assert made.compilations + made.cache_hits == 3, made
    assert engine.counters().rows == 300
named = {f"{name}{n}": array for n, half in enumerate(outputs) for name, array in half.items()}
np.savez(sys.argv[1], devices=mesh.size, **named)
"""


def outputs_on(devices: int, path: Path) -> dict[str, np.ndarray]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    subprocess.run([sys.executable, "-c", SCRIPT, str(path)], env=environment, check=True, timeout=300)
    with np.load(path) as outputs:
        return dict(outputs)


def test_p3_one_device_and_eight_give_the_same_bytes(tmp_path: Path) -> None:
    one, eight = (outputs_on(devices, tmp_path / f"{devices}.npz") for devices in (1, 8))
    assert (one.pop("devices"), eight.pop("devices")) == (1, 8)
    assert one.keys() == eight.keys() == {"pooled0", "hidden0", "pooled1", "hidden1"}
    for name, values in one.items():
        np.testing.assert_array_equal(values, eight[name], err_msg=name, strict=True)


def test_a_mesh_takes_all_devices_or_as_many_as_asked() -> None:
    assert make_mesh().size == jax.local_device_count()
    assert make_mesh(1).size == 1


@pytest.mark.parametrize("data", [0, 1000])
def test_a_mesh_that_does_not_fit_is_refused(data: int) -> None:
    with pytest.raises(SpecError, match=f"model.mesh.data: .* across {data} devices but this host has .* cpu device"):
        make_mesh(data)
