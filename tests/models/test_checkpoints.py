"""Restoring and converting checkpoints: the same numbers from every layout, every mismatch listed at once."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from batchinfer.errors import ConflictError, RestoreError
from batchinfer.models.checkpoints import orbax
from batchinfer.models.checkpoints.leaves import Leaf, mismatches
from batchinfer.models.convert import convert

WEIGHTS = "model.safetensors"


def same(left: dict[str, jax.Array], right: dict[str, jax.Array]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left
    )


def problems_of(load, directory: Path, **options: str) -> tuple[str, ...]:
    with pytest.raises(RestoreError) as caught:
        load(directory, **options)
    return caught.value.problems


# --- safetensors ----------------------------------------------------------------------------------------------------


def test_names_with_and_without_prefix_and_old_norm_names(copied, edit_tensors, load) -> None:
    directory = copied("bert-none")
    before = load(directory).params

    def aged(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        named = {f"bert.{name}": tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
        for new, old in (("Norm.weight", "Norm.gamma"), ("Norm.bias", "Norm.beta")):
            named = {name.replace(new, old): tensor for name, tensor in named.items()}
        return named | {
            "bert.embeddings.position_ids": np.arange(40)[None],
            "cls.predictions.bias": np.zeros(160, np.float32),
        }

    edit_tensors(directory / WEIGHTS, aged)
    assert same(load(directory).params, before)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_weights_stored_in_half_precision(dtype: type, copied, edit_tensors, load) -> None:
    directory = copied("roberta-none")
    before = load(directory).params
    edit_tensors(directory / WEIGHTS, lambda tensors: {name: tensor.astype(dtype) for name, tensor in tensors.items()})
    after = load(directory).params
    assert same(after, {name: np.asarray(leaf).astype(dtype).astype(np.float32) for name, leaf in before.items()})


def test_shards(copied, load) -> None:
    directory = copied("distilbert-none")
    before = load(directory).params
    shard(directory)
    assert same(load(directory).params, before)


def shard(directory: Path) -> None:
    tensors = load_file(directory / WEIGHTS)
    files = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (directory / WEIGHTS).unlink()


def test_every_mismatch_is_listed_at_once(copied, edit_tensors, load) -> None:
    directory = copied("bert-none")
    query = "encoder.layer.0.attention.self.query"

    def spoil(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        del tensors[f"{query}.bias"]
        tensors[f"{query}.weight"] = np.zeros((24, 8), np.float32)
        tensors["embeddings.LayerNorm.weight"] = np.zeros(24, np.int32)
        tensors["encoder.layer.7.output.dense.bias"] = np.zeros(24, np.float32)
        return tensors

    edit_tensors(directory / WEIGHTS, spoil)
    assert problems_of(load, directory) == (
        "extra encoder.layer.7.output.dense.bias (float32[24]): the model has no such parameter",
        f"missing {query}.bias (float32[24])",
        f"shape of {query}.weight is [24, 8], the model's is [24, 24]",
        "type of embeddings.LayerNorm.weight is int32, the model's is float32",
    )


def test_a_truncated_file(copied, load) -> None:
    directory = copied("bert-none")
    whole = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(whole[:-10])
    assert "is not a whole safetensors file" in problems_of(load, directory)[0]
    (directory / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "fetch it again" in problems_of(load, directory)[0]


# --- config ---------------------------------------------------------------------------------------------------------


def test_an_unknown_architecture(copied, edit_json, load) -> None:
    directory = copied("bert-none")
    edit_json(directory / "config.json", model_type="llama")
    (problem,) = problems_of(load, directory)
    known = "bert, roberta, xlm-roberta, camembert, distilbert"
    assert problem == f"the model is llama; supported are {known}, or your own (model.module)"


def test_everything_unsupported_in_the_config_is_listed(copied, edit_json, load) -> None:
    directory = copied("bert-none")
    edit_json(
        directory / "config.json",
        layer_norm_eps=None,
        hidden_act="swish",
        position_embedding_type="relative_key",
        num_attention_heads=5,
        is_decoder=True,
    )
    words = " | ".join(problems_of(load, directory))
    for word in ("no layer_norm_eps", "swish", "relative_key", "24 wide, which 5", "is_decoder"):
        assert word in words


@pytest.mark.parametrize(
    ("saved", "asked", "needed"),
    [("none", "sequence", "Sequence"), ("sequence", "token", "Token"), ("token", "sequence", "Sequence")],
)
def test_a_head_that_the_checkpoint_does_not_have(saved: str, asked: str, needed: str, goldens: Path, load) -> None:
    (problem,) = problems_of(load, goldens / f"bert-{saved}", head=asked)
    assert problem.endswith(f"this task needs a model saved as ...For{needed}Classification")


@pytest.mark.parametrize("head", ["sequence", "token"])
def test_hidden_states_of_a_model_with_a_head(head: str, goldens: Path, load) -> None:
    assert "head.out.kernel" not in load(goldens / f"roberta-{head}").params


def test_a_cross_encoder_has_one_label(copied, edit_json, edit_tensors, load) -> None:
    directory = copied("roberta-sequence")
    edit_json(directory / "config.json", id2label={"0": "LABEL_0"})
    out = "classifier.out_proj"
    one = {f"{out}.weight": np.ones((1, 24), np.float32), f"{out}.bias": np.ones(1, np.float32)}
    edit_tensors(directory / WEIGHTS, lambda tensors: tensors | one)
    model = load(directory, head="sequence")
    assert model.labels == ("LABEL_0",)
    inputs = {"tokens": np.array([[0, 9, 2, 2, 8, 2]], np.int32), "lengths": np.array([6], np.int32)}
    assert jax.eval_shape(model.apply, model.params, inputs)["logits"].shape == (1, 1)


def test_a_tokenizer_larger_than_the_model(copied, load) -> None:
    directory = copied("bert-none")
    tokenizer = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["vocab"]["surplus"] = 999
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (problem,) = problems_of(load, directory)
    assert "ids up to 999, but the model's vocabulary ends at 159" in problem


# --- conversion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert-sequence", "roberta-token", "xlm-roberta-none", "distilbert-sequence"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_converted_loads_bit_for_bit(name: str, dtype: str, tmp_path: Path, goldens: Path, load) -> None:
    member, head = name.rsplit("-", 1)
    place = convert(str(goldens / name), str(tmp_path / "new" / member))
    assert place.kind == "orbax"
    for asked in {"none", head}:
        before, after = (load(path, head=asked, dtype=dtype) for path in (goldens / name, place.directory))
        assert same(before.params, after.params)
        assert (before.labels, before.max_length, before.pooling) == (after.labels, after.max_length, after.pooling)
    (ids,) = after.tokenizer.encode(["the lazy fox"])
    np.testing.assert_array_equal(ids, before.tokenizer.encode(["the lazy fox"])[0])


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16])
def test_converted_half_precision_weights(stored: type, tmp_path: Path, copied, edit_tensors, load) -> None:
    directory = copied("bert-none")
    edit_tensors(directory / WEIGHTS, lambda tensors: {name: tensor.astype(stored) for name, tensor in tensors.items()})
    place = convert(str(directory), str(tmp_path / "converted"))
    assert {leaf.dtype for _, leaf in orbax.stored_leaves(place).values()} == {np.dtype(stored).name}
    for dtype in ("float32", "bfloat16"):
        assert same(load(directory, dtype=dtype).params, load(place.directory, dtype=dtype).params)


def test_converted_minilm(tmp_path: Path, minilm: str, load) -> None:
    place = convert(minilm, str(tmp_path / "minilm"))
    before, after = load(minilm, dtype="auto"), load(place.directory, dtype="auto")
    assert same(before.params, after.params)
    assert (after.pooling, after.tokenizer.default_max_length) == ("mean", 256)


def test_conversion_replaces_nothing_and_leaves_nothing_half_done(tmp_path: Path, goldens: Path, copied) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ConflictError, match="exists; give a new directory"):
        convert(str(goldens / "bert-none"), str(tmp_path / "there"))
    broken = copied("bert-none")
    save_file({"x": np.zeros(3)}, broken / WEIGHTS)
    with pytest.raises(RestoreError, match=r"missing embeddings\.word_embeddings\.weight"):
        convert(str(broken), str(tmp_path / "fresh" / "model"))
    assert list((tmp_path / "fresh").iterdir()) == []
    place = convert(str(goldens / "bert-none"), str(tmp_path / "fresh" / "model"))
    with pytest.raises(RestoreError, match="is an Orbax checkpoint already"):
        convert(str(place.directory), str(tmp_path / "again"))


def test_mismatches_of_a_converted_checkpoint_are_listed(tmp_path: Path, goldens: Path, edit_json, load) -> None:
    place = convert(str(goldens / "bert-none"), str(tmp_path / "model"))
    edit_json(place.directory / "config.json", intermediate_size=48, num_hidden_layers=3)
    problems = problems_of(load, place.directory)
    assert "missing layers.2.qkv.kernel (float32[24, 72])" in problems
    assert "shape of layers.0.up.kernel is [24, 40], the model's is [24, 48]" in problems


def test_damaged_orbax_data_is_one_line(tmp_path: Path, goldens: Path, load) -> None:
    place = convert(str(goldens / "bert-none"), str(tmp_path / "model"))
    largest = max(place.directory.glob("params/**/d/*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    (problem,) = problems_of(load, place.directory)
    assert problem.startswith("cannot be read as an Orbax checkpoint")
    assert "\n" not in problem
    for path in place.directory.glob("params/d/*"):
        path.unlink()
    assert problems_of(load, place.directory) == ("holds no arrays that can be read; copy or save it again",)


def test_mismatches_accept_other_widths_of_a_kind() -> None:
    wanted = {"a": Leaf((2,), "float32"), "b": Leaf((2,), "int32")}
    stored = {"a": Leaf((2,), "bfloat16"), "b": Leaf((2,), "int64")}
    assert mismatches(wanted, stored, harmless=lambda _: False) == []
    assert mismatches({"a": wanted["a"]}, {"a": Leaf((2,), "F8_E4M3")}, lambda _: False) == [
        "type of a is F8_E4M3, the model's is float32"
    ]
