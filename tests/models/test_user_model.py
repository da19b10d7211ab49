"""The user's own NNX or Linen module: restored from every usual layout, called by input name, pure."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import save_file

from batchinfer.errors import RestoreError, SpecError
from batchinfer.job import spec
from batchinfer.models.base import LoadedModel
from batchinfer.models.load import load_model

FEATURES = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


class Small(nnx.Module):
    """Dense, batch norm, dropout, a list of layers: one of each kind of state."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.first = nnx.Linear(3, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs) for _ in range(2)])

    def __call__(self, features: jax.Array) -> dict[str, jax.Array]:
        hidden = self.dropout(self.norm(self.first(features)))
        for layer in self.layers:
            hidden = layer(hidden)
        return {"scores": hidden}


class SmallLinen(linen.Module):
    width: int

    @linen.compact
    def __call__(self, features: jax.Array) -> dict[str, jax.Array]:
        hidden = linen.BatchNorm(use_running_average=True)(linen.Dense(self.width)(features))
        return {"scores": linen.Dense(2)(hidden)}


@pytest.fixture(autouse=True)
def my_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `my_models` that the jobs below name."""
    module = types.ModuleType("my_models")
    module.small = lambda width=4, seed=0: Small(width, rngs=nnx.Rngs(seed))
    module.small_linen = lambda width=4: SmallLinen(width)
    module.number = lambda: 3
    monkeypatch.setitem(sys.modules, "my_models", module)


@pytest.fixture
def load(sharding: jax.sharding.Sharding) -> Callable[..., LoadedModel]:
    def loaded(factory: str, checkpoint: Path | None, dtype: str = "auto", **kwargs: object) -> LoadedModel:
        where = None if checkpoint is None else str(checkpoint)
        model = spec.Model(module=f"my_models:{factory}", kwargs=kwargs, checkpoint=where, dtype=dtype)
        return load_model(model, sharding=sharding)

    return loaded


@pytest.fixture(scope="module")
def trained() -> Small:
    """Weights and batch statistics unlike those of a new module."""
    module = Small(4, rngs=nnx.Rngs(7))
    module.norm.mean[...] = jnp.arange(4.0)
    module.norm.var[...] = jnp.arange(4.0) + 0.5
    module.eval()
    return module


@pytest.fixture(scope="module")
def trained_linen() -> dict:
    variables = SmallLinen(4).init(jax.random.key(0), FEATURES)
    variables["batch_stats"]["BatchNorm_0"]["mean"] = jnp.arange(4.0)
    return variables


def scores(model: LoadedModel) -> np.ndarray:
    return np.asarray(jax.jit(model.apply)(model.params, {"features": FEATURES})["scores"])


def nnx_layouts(module: Small) -> dict[str, Callable[[Path], None]]:
    state = nnx.state(module)
    parameters, statistics = nnx.state(module, nnx.Param), nnx.state(module, nnx.BatchStat)
    moments = jax.tree.map(jnp.zeros_like, nnx.to_pure_dict(parameters))
    training = {"step": 3, "opt_state": [{"mu": moments}, None], "model": nnx.to_pure_dict(state)}
    restored = nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    flat = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in restored}
    return {
        "state": lambda path: ocp.save(path, state),
        "pure dict": lambda path: ocp.save(path, nnx.to_pure_dict(state)),
        "training state": lambda path: ocp.save(path, training),
        "params and batch_stats": lambda path: ocp.save(
            path, {"params": nnx.to_pure_dict(parameters), "batch_stats": nnx.to_pure_dict(statistics)}
        ),
        "steps": lambda path: ocp.save(path / "100", nnx.to_pure_dict(state)),
        "safetensors": lambda path: save_tensors(path, flat),
    }


def save_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")


LAYOUTS = ("state", "pure dict", "training state", "params and batch_stats", "steps", "safetensors")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nnx_from_every_layout(layout: str, trained: Small, tmp_path: Path, load) -> None:
    nnx_layouts(trained)[layout](tmp_path / "checkpoint")
    model = load("small", tmp_path / "checkpoint")
    np.testing.assert_allclose(scores(model), trained(FEATURES)["scores"], rtol=1e-6)
    assert model.parameter_count == sum(leaf.size for leaf in model.params.values()) == 3 * 4 + 4 * 5 + 2 * 20


def test_nnx_without_a_checkpoint_keeps_what_the_factory_gave(load) -> None:
    expected = Small(4, rngs=nnx.Rngs(5))
    expected.eval()
    np.testing.assert_allclose(scores(load("small", None, seed=5)), expected(FEATURES)["scores"], rtol=1e-6)


def test_nnx_calls_are_pure(trained: Small, tmp_path: Path, load) -> None:
    ocp.save(tmp_path / "checkpoint", nnx.state(trained))
    model = load("small", tmp_path / "checkpoint")
    np.testing.assert_array_equal(scores(model), scores(model))


def test_nnx_mismatches_are_listed_at_once(trained: Small, tmp_path: Path, load) -> None:
    tree = nnx.to_pure_dict(nnx.state(trained))
    del tree["norm"]["var"]
    tree["surplus"] = jnp.zeros(3)
    ocp.save(tmp_path / "checkpoint", tree)
    with pytest.raises(RestoreError) as caught:
        load("small", tmp_path / "checkpoint", width=5)
    problems = caught.value.problems
    assert "extra surplus (float32[3]): the model has no such parameter" in problems
    assert "missing norm.var (float32[5])" in problems
    assert "shape of first.kernel is [3, 4], the model's is [3, 5]" in problems
    assert not [problem for problem in problems if "rngs" in problem]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_asked_dtype_is_the_parameters(dtype: str, trained: Small, tmp_path: Path, load) -> None:
    ocp.save(tmp_path / "checkpoint", nnx.state(trained))
    model = load("small", tmp_path / "checkpoint", dtype=dtype)
    assert {str(leaf.dtype) for leaf in model.params.values()} == {dtype}


LINEN_LAYOUTS = {
    "variables": lambda v: v,
    "training state": lambda v: v | {"step": 3, "opt_state": [{"mu": v["params"]}]},
    "variables as params": lambda v: {"params": v, "step": 3},
}


@pytest.mark.parametrize("layout", LINEN_LAYOUTS)
def test_linen_from_every_layout(layout: str, trained_linen: dict, tmp_path: Path, load) -> None:
    ocp.save(tmp_path / "checkpoint", LINEN_LAYOUTS[layout](trained_linen))
    model = load("small_linen", tmp_path / "checkpoint")
    expected = SmallLinen(4).apply(trained_linen, FEATURES)["scores"]
    np.testing.assert_allclose(scores(model), expected, rtol=1e-6)


def test_linen_from_safetensors(trained_linen: dict, tmp_path: Path, load) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(trained_linen)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}
    save_tensors(tmp_path / "checkpoint", named)
    expected = SmallLinen(4).apply(trained_linen, FEATURES)["scores"]
    np.testing.assert_allclose(scores(load("small_linen", tmp_path / "checkpoint")), expected, rtol=1e-6)


def test_linen_params_alone(tmp_path: Path, sharding: jax.sharding.Sharding) -> None:
    sys.modules["my_models"].dense = lambda: linen.Dense(2)
    ocp.save(tmp_path / "checkpoint", {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)})
    model = load_model(spec.Model(module="my_models:dense", checkpoint=str(tmp_path / "checkpoint")), sharding=sharding)
    assert model.apply(model.params, {"inputs": np.ones((1, 3), np.float32)}).tolist() == [[4.0, 4.0]]


@pytest.mark.parametrize(
    ("module", "kwargs", "message"),
    [
        ("no_such_module:build", {}, "model.module: no_such_module:build cannot be imported"),
        ("my_models:absent", {}, "model.module: my_models:absent cannot be imported"),
        ("my_models:number", {}, "gave a int, not a flax.nnx.Module or flax.linen.Module"),
        ("my_models:small", {"wdith": 3}, "model.kwargs: .*unexpected keyword argument 'wdith'"),
        ("my_models:small_linen", {}, "model.checkpoint: a Linen module needs one"),
    ],
)
def test_what_is_no_model(module: str, kwargs: dict, message: str, sharding: jax.sharding.Sharding) -> None:
    with pytest.raises(SpecError, match=message):
        load_model(spec.Model(module=module, kwargs=kwargs), sharding=sharding)
