"""The same job on one device and on eight: equal results, and as many programs."""

from __future__ import annotations

import subprocess
import sys

import orjson
import pytest
from conftest import launch_environment, tree

from batchinfer.job import describe

SCRIPT = """
import sys, jax, batchinfer
from batchinfer.job import load_text
assert jax.local_device_count() == int(sys.argv[2])
report = batchinfer.run(load_text(open(sys.argv[1]).read(), "job.yaml"), quiet=True)
print(report.compilations + report.cache_hits)
"""


@pytest.mark.parametrize("devices", [1, 8])
def test_p3_equal_bytes_on_one_and_on_eight_devices(letters_job, tmp_path, devices):
    import batchinfer

    here = {"source.unit_bytes": 4096, "sink.path": str(tmp_path / "here"), "model.mesh.data": 1}
    batchinfer.run(letters_job(400, **here), quiet=True)
    there = {"source.unit_bytes": 4096, "sink.path": str(tmp_path / "there"), "run.compile_cache": "none"}
    (tmp_path / "job.yaml").write_text(describe(letters_job(tmp_path / "in.jsonl", **there).spec))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "job.yaml"), str(devices)],
        env=launch_environment(XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}", JAX_PLATFORMS="cpu"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 2  # buckets
    one, many = tree(tmp_path / "here"), tree(tmp_path / "there")
    assert {name: data for name, data in one.items() if name.startswith("part-")} == {
        name: data for name, data in many.items() if name.startswith("part-")
    }
    assert orjson.loads(many["_MANIFEST.json"])["fingerprint"] == orjson.loads(one["_MANIFEST.json"])["fingerprint"]
